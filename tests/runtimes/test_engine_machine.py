"""Which machine may run an engine, by its record; and what is said to one that may not."""

import dataclasses
from collections.abc import Container

import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.runtimes.engine_file import (
    EngineFile,
    EngineRecord,
    HardwareCompatibility,
    check_machine,
)
from alexnet_deploy.runtimes.gpu_driver import Gpu
from tests.support.trt_stub.fake_runtime import FILE, PORTABLE

GPU = Gpu(name="NVIDIA Fake 100", compute_capability="9.0", cuda_version="13.2")
RTX_CAPABILITIES = ("7.5", "8.6", "8.9", "12.0")
BUILT = ("8.6", "8.9")


def check(
    record: EngineRecord, *, version: str = "11.4.0.106", lean: str = "", **changed: str
) -> None:
    capabilities: Container[str] = RTX_CAPABILITIES if record.runtime == "tensorrt-rtx" else ()
    check_machine(
        EngineFile(record=record, plan=b"plan", source="m.engine"),
        runtime_version=version,
        lean_version=lean,
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
        compute_capability="8.9",
        cuda_version="12.9",
    )
    assert message == (
        "m.engine: was built for TensorRT 11.4.0.106, here is 11.1.0.9; for compute capability "
        "9.0, here is 8.9; for a driver of CUDA 13.0 or later, here is 12.9, which can be updated; "
        "build it again for this machine with: alexnet-deploy export CKPT --trt -o FILE"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "11.4.0.107"},
        {"compute_capability": "10.0"},
        {"cuda_version": "12.9"},
        {"cuda_version": "9.2"},
    ],
)
def test_one_difference_is_enough_and_the_only_one_named(changed: dict[str, str]) -> None:
    message = refusal(FILE.record, **changed)
    assert message.count("here is") == 1
    assert next(iter(changed.values())) in message


@pytest.mark.parametrize("name", ["NVIDIA H100", "NVIDIA Fake 100 MIG 1g.18gb"])
def test_a_gpu_of_another_name_runs_it(name: str) -> None:
    check(FILE.record, name=name)


@pytest.mark.parametrize("cuda", ["13.0", "13.2", "13.10", "14.0"])
def test_a_driver_that_is_as_new_or_newer_runs_it(cuda: str) -> None:
    check(FILE.record, cuda_version=cuda)


LATER = dataclasses.replace(FILE.record, version_compatible=True)


@pytest.mark.parametrize("version", ["11.4.0.107", "11.5.0.1", "11.10.0.1"])
def test_a_later_version_runs_what_is_built_for_it_with_the_lean_runtime(version: str) -> None:
    check(LATER, version=version, lean="11.4.0.106")
    message = refusal(LATER, version=version)
    lean = "runs it with the package tensorrt-lean-cu13-libs of 11.4.0.106, and of that has"
    assert f"for TensorRT 11.4.0.106, here is {version}, which {lean} none; build" in message
    assert f"{lean} 11.5.0.1" in refusal(LATER, version=version, lean="11.5.0.1")


@pytest.mark.parametrize("version", ["11.3.0.106", "10.16.0.1", "12.0.0.1"])
def test_an_earlier_version_or_the_next_major_one_does_not(version: str) -> None:
    message = refusal(LATER, version=version, lean="11.4.0.106")
    assert f"for TensorRT 11.4.0.106, here is {version}; build" in message


def test_the_version_that_built_it_needs_no_lean_runtime() -> None:
    check(LATER)


@pytest.mark.parametrize(
    ("level", "runs_on"),
    [
        ("none", ["9.0"]),
        ("same-compute-capability", ["9.0"]),
        ("ampere-plus", ["8.0", "8.9", "9.0", "10.0", "12.0"]),
    ],
)
def test_a_level_of_compatibility_says_which_gpus_run_it(
    level: HardwareCompatibility, runs_on: list[str]
) -> None:
    record = dataclasses.replace(FILE.record, hardware_compatibility=level)
    for capability in ("7.5", "8.0", "8.9", "9.0", "10.0", "12.0"):
        if capability in runs_on:
            check(record, compute_capability=capability)
        else:
            assert f"here is {capability};" in refusal(record, compute_capability=capability)


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
