"""Which machine may run an engine, by its record; and what is said to one that may not."""

import dataclasses
from collections.abc import Container

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.runtimes.engine_file import EngineFile, EngineRecord, check_machine
from alexnet_deploy.runtimes.gpu_driver import Gpu
from tests.support.trt_stub.fake_runtime import FILE, PORTABLE

GPU = Gpu(name="NVIDIA Fake 100", compute_capability="9.0", cuda_version="13.2")
RTX_CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")
BUILT = ("8.6", "8.9")


def check(record: EngineRecord, *, version: str = "11.4.0.106", **changed: str) -> None:
    capabilities: Container[str] = RTX_CAPABILITIES if record.runtime == "tensorrt-rtx" else ()
    check_machine(
        EngineFile(record=record, plan=b"plan", source="m.engine"),
        runtime_version=version,
        gpu=dataclasses.replace(GPU, **changed),
        rtx_capabilities=capabilities,
    )


def refusal(record: EngineRecord, **changed: str) -> str:
    with pytest.raises(IncompatibleFileError) as caught:
        check(record, **changed)
    return str(caught.value)


def test_the_machine_that_built_an_engine_may_run_it() -> None:
    check(FILE.record)


def test_every_difference_of_the_machine_is_listed_with_what_to_do() -> None:
    message = refusal(
        FILE.record,
        version="11.1.0.9",
        name="NVIDIA GeForce RTX 4090",
        compute_capability="8.9",
        cuda_version="13.1",
    )
    assert message == (
        "m.engine: was built for TensorRT 11.4.0.106, here is 11.1.0.9; for the GPU NVIDIA Fake "
        "100, here is NVIDIA GeForce RTX 4090; for compute capability 9.0, here is 8.9; for a "
        "driver of CUDA 13.2 or later, here is 13.1, which can be updated; build it again for "
        "this machine with: alexnet-deploy export CKPT --trt -o FILE"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "11.4.0.107"},
        {"name": "NVIDIA H100"},
        {"compute_capability": "10.0"},
        {"cuda_version": "13.1"},
        {"cuda_version": "12.9"},
    ],
)
def test_one_difference_is_enough_and_the_only_one_named(changed: dict[str, str]) -> None:
    message = refusal(FILE.record, **changed)
    assert message.count("here is") == 1
    assert next(iter(changed.values())) in message


@pytest.mark.parametrize("cuda", ["13.2", "13.10", "14.0"])
def test_a_driver_that_is_as_new_or_newer_runs_it(cuda: str) -> None:
    check(FILE.record, cuda_version=cuda)


@pytest.mark.parametrize("capabilities", [(), BUILT])
def test_a_portable_engine_runs_on_any_gpu_that_it_was_built_for(
    capabilities: tuple[str, ...],
) -> None:
    record = dataclasses.replace(PORTABLE, compute_capabilities=capabilities)
    check(record, name="any", compute_capability="8.9", cuda_version="12.0")


def test_a_portable_engine_is_built_again_for_the_gpu_here() -> None:
    record = dataclasses.replace(PORTABLE, compute_capabilities=BUILT)
    message = refusal(record, compute_capability="12.0")
    assert "compute capability 8.6 or 8.9, here is 12.0" in message
    assert message.endswith(
        "with: alexnet-deploy export CKPT --rtx --compute-capability 12.0 -o FILE"
    )


def test_for_a_gpu_that_tensorrt_rtx_does_not_have_tensorrt_is_named() -> None:
    record = dataclasses.replace(PORTABLE, compute_capabilities=BUILT)
    message = refusal(record, compute_capability="9.0")
    assert message.endswith("with: alexnet-deploy export CKPT --trt -o FILE")


def test_a_portable_engine_of_another_version_keeps_its_choice_of_gpus() -> None:
    message = refusal(PORTABLE, version="1.6")
    assert "TensorRT-RTX 11.4.0.106, here is 1.6" in message
    assert message.endswith("with: alexnet-deploy export CKPT --rtx -o FILE")
