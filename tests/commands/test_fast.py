"""--fast of `classify`, `embed` and `index`."""

import json
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.inference import embeddings
from alexnet_deploy.photographs.samples import sample_paths
from tests.support.command_line import done, refused, run
from tests.support.pretended_int8 import NUM_PHOTOGRAPHS, copied, copy, pretend

FAST = "--fast"


@pytest.fixture(autouse=True)
def _quick_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)


@pytest.mark.parametrize("command", [["classify", "."], ["embed", ".", "-o", "v.npy"], ["index"]])
def test_what_it_chooses_cannot_be_given(command: list[str]) -> None:
    for option, value in (("--precision", "int8"), ("--decode", "exact")):
        message = refused(2, *command, "--fast", option, value)
        assert f"--fast: chooses that; leave it out, or {option} {value}" in message


def test_a_stopped_run_is_continued_with_its_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with more photographs, on which other ranges would be measured."""
    photographs, output = copied(tmp_path / "photos"), tmp_path / "v.npy"
    command = ("embed", photographs, "-o", output, FAST)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "write_npy", stop)
        stopped = run(*command)
    assert stopped.exit_code != 0
    assert "fast: int8, in which this processor takes less time; calibrated" in stopped.stderr
    copy(sample_paths()[1], photographs / "new.jpg")
    continued = done(*command, "--json")
    assert "with the ranges of the run that has stopped" in continued.stderr
    assert f"continues where a run has stopped, {NUM_PHOTOGRAPHS} rows" in continued.stderr
    record = json.loads(continued.stdout)
    assert record["ranges"]["calibration"] == {"photographs": 10, "are_samples": False}
    assert (record["precision"], record["decode"]["scale"]) == ("int8", "scaled")
    told = done("info", output).stdout
    assert "  calibration   on 10 photographs, for 8 layers" in told
    assert np.isfinite(np.load(output)).all()
    anew = done(*command, "--json")
    assert "; calibrated on " in anew.stderr, "the run before was not stopped"


def test_classes_are_told_as_usual(tmp_path: Path) -> None:
    result = done("classify", copied(tmp_path / "photos"), FAST, "--json")
    assert len(result.stdout.splitlines()) == NUM_PHOTOGRAPHS
    assert "fast: int8, " in result.stderr
    assert ", CPU, int8" in result.stderr
    assert "at scaled size" in result.stderr


def test_standard_input_is_one_photograph_and_a_file_has_its_own_precision(tmp_path: Path) -> None:
    data = sample_paths()[0].read_bytes()
    result = run("classify", "-", FAST, "--json", stdin=data)
    assert result.exit_code == 0, result.output
    assert "fast: fp32; not int8, which pays from 12 photographs on (here 0)" in result.stderr
    done("export", "-o", tmp_path / "m.onnx", "--precision", "fp16", "--no-verify")
    result = run("classify", "-", FAST, "--model", tmp_path / "m.onnx", stdin=data)
    assert result.exit_code == 0, result.output
    assert f"fast: fp16, the precision of {tmp_path / 'm.onnx'}; large JPEGs are" in result.stderr
