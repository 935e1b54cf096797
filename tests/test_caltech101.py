"""The bundled checkpoint on the photographs that it was measured on; skipped without them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_deploy.choices import Runtime
from alexnet_deploy.export.opening import open_runner_of
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.inference.classification import classify
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.verification.onnx import verify


def test_accuracy_is_that_of_the_checkpoints_header(caltech_test: Path) -> None:
    """All 1,695, from file to label: a wrong crop, mean or label order costs points."""
    measured = load_checkpoint(bundled_checkpoint()).spec.provenance["measured"]
    ranks: list[int] = []
    with open_runner_of(None, RunnerOptions(outputs=("probabilities",))) as runner:
        for result in classify(runner, find_photographs([caltech_test]), top=5):
            labels = [one.label for one in result.predictions]
            assert result.path is not None
            truth = result.path.parent.name
            ranks.append(labels.index(truth) if truth in labels else 5)
    assert len(ranks) == measured["photographs"]
    # The header's figures come from another program's rounding: 0.3 points are five photographs.
    assert abs(ranks.count(0) / len(ranks) - measured["top1"]) < 0.003
    assert abs(sum(rank < 5 for rank in ranks) / len(ranks) - measured["top5"]) < 0.003


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_an_export_is_verified_on_other_photographs_than_the_samples(
    caltech_test: Path, runtime: Runtime
) -> None:
    checkpoint = load_checkpoint(bundled_checkpoint())
    file = build_model(checkpoint, ("probabilities", "fc7", "norm1", "pool5"))
    some = list(every(85, find_photographs([caltech_test])))
    report = verify(file, checkpoint, some, RunnerOptions(runtime=runtime, batch_size=16))
    assert report.passed, report.table()
    assert report.num_photographs == len(some)


def every(step: int, paths: Iterator[Path]) -> Iterator[Path]:
    for index, path in enumerate(paths):
        if index % step == 0:
            yield path
