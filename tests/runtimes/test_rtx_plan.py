"""What TensorRT-RTX says of a plan: with the real library, and with each answer that it has."""

import pytest

from alexnet_deploy.errors import DeviceError, IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.gpu_driver import gpus
from alexnet_deploy.runtimes.rtx_plan import check_plan
from tests.support.networks import random_checkpoint
from tests.support.trt_stub.dolls import doll, maker


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")


@pytest.fixture(scope="module")
def plan() -> bytes:
    from alexnet_deploy.trt.rtx_builder import build_rtx_plan

    file = build_model(random_checkpoint("paper"), ("fc7",))
    return build_rtx_plan(file, BatchProfile(opt=1, max=1), ("8.9",))


@pytest.mark.parametrize("damage", ["first byte", "cut in the header", "empty", "text"])
def test_what_is_no_engine_is_refused_without_a_gpu(plan: bytes, damage: str) -> None:
    damaged = {
        "first byte": bytes([plan[0] ^ 1]) + plan[1:],
        "cut in the header": plan[:63],
        "empty": b"",
        "text": b"not an engine " * 100,
    }[damage]
    with pytest.raises(
        IncompatibleFileError, match=r"a\.engine: not an engine.*MALFORMED_ENGINE.*--rtx$"
    ):
        check_plan(damaged, "a.engine")


@pytest.mark.skipif(bool(gpus()), reason="is about machines without a GPU")
def test_an_engine_needs_a_gpu(plan: bytes) -> None:
    with pytest.raises(DeviceError, match=r"a\.engine: cannot run here .*needs an NVIDIA GPU"):
        check_plan(plan, "a.engine")


def say(monkeypatch: pytest.MonkeyPatch, validity: str, *reasons: str) -> None:
    """Let the library answer so."""
    import tensorrt_rtx as rtx

    kinds = rtx.EngineInvalidityDiagnostics.__members__
    answer = getattr(rtx.EngineValidity, validity), sum(int(kinds[name]) for name in reasons)
    runtime = doll(rtx.Runtime, get_engine_validity=lambda plan: answer)
    monkeypatch.setattr(rtx, "Runtime", maker(rtx.Runtime, runtime))


@pytest.mark.parametrize("validity", ["VALID", "SUBOPTIMAL"])
def test_an_engine_that_runs_passes(monkeypatch: pytest.MonkeyPatch, validity: str) -> None:
    say(monkeypatch, validity)
    check_plan(b"plan", "a.engine")


@pytest.mark.parametrize(
    "reason",
    [
        *("UNSUPPORTED_CC", "OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME"),
        *("INSUFFICIENT_GPU_MEMORY", "CUDA_ERROR"),
    ],
)
def test_a_machine_that_does_not_fit_is_a_device_error(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    say(monkeypatch, "INVALID", reason)
    with pytest.raises(DeviceError, match=rf"cannot run here \({reason}\)"):
        check_plan(b"plan", "a.engine")


def test_for_another_gpu_both_ways_to_an_engine_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(monkeypatch, "INVALID", "UNSUPPORTED_CC")
    with pytest.raises(
        DeviceError,
        match=r"compute_capabilities: .*export CKPT --rtx, or, .* with: .* --trt$",
    ):
        check_plan(b"plan", "a.engine")


def test_another_version_is_an_incompatible_file_whatever_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(monkeypatch, "INVALID", "VERSION_MISMATCH", "UNSUPPORTED_CC")
    with pytest.raises(IncompatibleFileError, match=r"VERSION_MISMATCH, UNSUPPORTED_CC.*--rtx$"):
        check_plan(b"plan", "a.engine")
