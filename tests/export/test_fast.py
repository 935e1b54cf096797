"""Which precision is the quickest here, and what int8 of a checkpoint depends on."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.choices import Device, Precision, Runtime
from alexnet_deploy.errors import IncompatibleFileError, UsageError, VerificationError
from alexnet_deploy.export import fast, int8, opening
from alexnet_deploy.export.calibration import quantized
from alexnet_deploy.files.records import plain_fields, read_record
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.calibrated import ActivationRanges
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.samples import sample_paths, varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.verification import agreement
from alexnet_deploy.verification.comparison import TOLERANCES
from tests.support.pretended_int8 import NUM_PHOTOGRAPHS, pretend

OPTIONS = RunnerOptions(runtime="openvino", batch_size=4)
PATHS = [Path(f"{number}.jpg") for number in range(30)]


@pytest.fixture(scope="module")
def wide() -> ModelFile:
    return build_model(load_checkpoint(bundled_checkpoint()), ("fc7",))


@pytest.fixture(scope="module")
def ranges() -> ActivationRanges:
    """Return the ranges of the bundled checkpoint on a few samples."""
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        some, checkpoint = varied_samples()[:NUM_PHOTOGRAPHS], load_checkpoint(bundled_checkpoint())
        first, second = (int8.judged(checkpoint, some, OPTIONS, print) for _ in range(2))
    assert first == second, "measured twice on the same machine"
    assert first.ranges is not None, first.reason
    return first.ranges


def attempts(
    monkeypatch: pytest.MonkeyPatch,
    *,
    device: Device = "cpu",
    runtime: Runtime = "openvino",
    avx2: bool = False,
    bf16: bool = False,
    num_photographs: int = len(PATHS),
    failing: tuple[Precision, ...] = (),
) -> tuple[list[Precision], str]:
    """Return the precisions that are opened on such a machine, and what is said."""
    flags = "fpu avx2" if avx2 else "fpu avx"
    resolved = dataclasses.replace(OPTIONS, device=device, runtime=runtime)
    monkeypatch.setattr(
        "alexnet_deploy.runtimes.processor.processor_fields", lambda: {"flags": flags}
    )
    monkeypatch.setattr("alexnet_deploy.runtimes.openvino_runner.native_bf16", lambda: bf16)
    monkeypatch.setattr(fast, "resolve", lambda options: resolved)
    monkeypatch.setattr(fast, "BREAK_EVEN", {"fp32": 20, "bf16": 25})
    judged = int8.Judged(ranges=None if "int8" in failing else RANGES, reason="judged")
    monkeypatch.setattr(int8, "judged", lambda *_: judged)
    opened: list[Precision] = []
    lines: list[str] = []

    def open_with(options: RunnerOptions) -> Any:
        opened.append(options.precision)
        assert (options.ranges is RANGES) == (options.precision == "int8")
        if options.precision in failing:
            kind = IncompatibleFileError if options.precision == "fp16" else VerificationError
            raise kind("it differs")

    fast.open_quickest(
        lambda: None,  # type: ignore[arg-type, return-value]
        PATHS[:num_photographs],
        OPTIONS,
        open_with,
        notify=lines.append,
    )
    (line,) = lines
    return opened, line


RANGES: Any = object()


@pytest.mark.parametrize(
    ("machine", "opened", "said"),
    [
        (
            {},
            ["fp32"],
            "fast: fp32, where this processor or the runtime is no quicker in others; l",
        ),
        ({"bf16": True}, ["bf16"], "fast: bf16, for which this processor has instructions; large"),
        (
            {"avx2": True},
            ["int8"],
            "fast: int8, in which this .* less time; judged; large JPEGs",
        ),
        ({"avx2": True, "bf16": True}, ["int8"], "int8"),
        ({"avx2": True, "num_photographs": 19}, ["fp32"], "fp32; not int8, .* from 20 .*here 19"),
        (
            {"avx2": True, "bf16": True, "num_photographs": 24},
            ["bf16"],
            "bf16; not int8, .* from 25",
        ),
        ({"avx2": True, "failing": ("int8",)}, ["fp32"], "fp32; not int8, judged"),
        (
            {"bf16": True, "failing": ("bf16",)},
            ["bf16", "fp32"],
            "not bf16, .* fails here: it differs",
        ),
        ({"avx2": True, "bf16": True, "runtime": "onnxruntime"}, ["fp32"], "fp32, where"),
        ({"avx2": True, "device": "cuda"}, ["fp16"], "fp16, on a GPU"),
        ({"device": "cuda", "failing": ("fp16",)}, ["fp16", "fp32"], "fp32; not fp16"),
    ],
)
def test_the_machine_chooses_and_what_is_not_admitted_gives_way(
    monkeypatch: pytest.MonkeyPatch, machine: dict[str, Any], opened: list[str], said: str
) -> None:
    found, line = attempts(monkeypatch, **machine)
    assert found == opened
    assert re.search(said, line), line


def test_a_checkpoint_that_fails_in_fp32_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VerificationError):
        attempts(monkeypatch, failing=("fp32",))


def test_int8_that_is_too_far_from_fp32_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    strict = dataclasses.replace(TOLERANCES["int8"], mean_cosine=0.9999999)
    monkeypatch.setattr(agreement, "TOLERANCES", {"int8": strict})
    checkpoint = load_checkpoint(bundled_checkpoint())
    found = int8.judged(checkpoint, varied_samples()[:NUM_PHOTOGRAPHS], OPTIONS, print)
    assert found.ranges is None
    assert found.reason.startswith("which is too far from fp32 on these photographs: the same")


def test_photographs_that_cannot_be_read_are_too_few(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch)
    (tmp_path / "bad.jpg").write_bytes(b"no photograph")
    checkpoint = load_checkpoint(bundled_checkpoint())
    lines: list[str] = []
    some = [tmp_path / "bad.jpg"] * (NUM_PHOTOGRAPHS - 4) + list(varied_samples()[:4])
    found = int8.judged(checkpoint, some, OPTIONS, lines.append)
    assert found == int8.Judged(
        reason="since too few of 12 photographs could be read to calibrate and compare it"
    )
    assert len(lines) == 6, lines


@given(st.integers(0, 20_000))
def test_a_sample_is_spread_over_all_photographs(count: int) -> None:
    num, some = fast._sampled(Path(str(number)) for number in range(count))
    numbers = [int(str(path)) for path in some]
    assert num == count
    assert len(numbers) == min(count, fast.NUM_SAMPLED)
    gaps = [after - before for before, after in zip([-1, *numbers], [*numbers, count], strict=True)]
    assert min(gaps) > 0
    assert max(gaps) <= 2 * max(1, count / fast.NUM_SAMPLED) + 1


def test_the_same_ranges_give_the_same_network(wide: ModelFile, ranges: ActivationRanges) -> None:
    text = json.dumps(plain_fields(ranges))
    again = read_record(ActivationRanges, text, "ranges", "again")
    assert again == ranges
    first, second = quantized(wide, ranges), quantized(wide, again)
    assert first.identity == second.identity != wide.identity
    assert first.calibration == ranges.calibration
    (one, *others) = ranges.layers
    changed = (dataclasses.replace(one, largest=one.largest * 1.001), *others)
    other = quantized(wide, dataclasses.replace(ranges, layers=changed))
    assert other.identity != first.identity


def test_ranges_of_another_network_are_refused(wide: ModelFile, ranges: ActivationRanges) -> None:
    few = dataclasses.replace(ranges, layers=ranges.layers[1:])
    with pytest.raises(IncompatibleFileError, match=r"ranges: damaged, .* \(input\)"):
        quantized(wide, few)
    with pytest.raises(IncompatibleFileError, match=r"ranges were measured with another\.\.\."):
        quantized(wide, dataclasses.replace(ranges, checkpoint="another"))


def test_the_cache_tells_ranges_apart_and_keeps_those_that_will_be_opened_again(
    ranges: ActivationRanges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    halved = tuple(dataclasses.replace(one, largest=one.largest * 0.9) for one in ranges.layers)
    other = dataclasses.replace(ranges, layers=halved)
    identities, counts = [], []
    lines: list[str] = []
    for own, is_kept in ((ranges, False), (ranges, True), (other, True), (ranges, True)):
        options = dataclasses.replace(OPTIONS, precision="int8", ranges=own)
        with opening.open_runner_of(None, options, is_kept=is_kept, notify=lines.append) as runner:
            identities.append(runner.identity)
            assert runner.options.ranges == own
        counts.append(len(list(tmp_path.rglob("*.network"))))
    assert counts == [0, 2, 4, 4], "each as a graph and as OpenVINO compiled it"
    assert identities[0] == identities[1] == identities[3] != identities[2]


def test_a_program_does_what_the_commands_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lines: list[str] = []
    paths = sample_paths()[:NUM_PHOTOGRAPHS]
    options: dict[str, Any] = {"batch_size": 4}
    with opening.open_model(fast_for=paths, notify=lines.append, **options) as model:
        assert (model.precision, model.decode.scale) == ("int8", "scaled")
        fc7 = model.embed(paths[:2]).vectors
        assert (model.embed(paths[:2], layer="fc6").vectors > 0).any(), "opened again"
    assert fc7.shape == (2, 4096)
    assert lines[-1].startswith("fast: int8, ")
    given: list[dict[str, Any]] = [{"precision": "bf16"}, {"decode": "exact"}]
    for chosen in given:
        with pytest.raises(
            UsageError, match=r"fast_for: chooses that; leave it out, or (prec|dec)"
        ):
            opening.open_model(fast_for=paths, **chosen)
