"""Which GPUs there are, over a driver of ours: what it answers, and every way it cannot."""

import subprocess
import sys

import pytest

from alexnet_deploy.errors import DeviceError
from alexnet_deploy.runtimes import gpu_driver
from alexnet_deploy.runtimes.gpu_driver import Gpu, current_gpu, gpus
from tests.support.trt_stub.fake_driver import MAJOR, MINOR, NO_DEVICE, FakeDriver
from tests.support.waiting import PATIENCE_S

pytest_plugins = ["tests.support.trt_stub.fixtures"]

FUNCTIONS = [name for name in vars(FakeDriver) if name.startswith("cu")]


def test_a_gpu_is_described(driver: FakeDriver) -> None:
    expected = Gpu(name="NVIDIA Fake 100", compute_capability="9.0", cuda_version="13.2")
    assert gpus() == (expected,)
    assert current_gpu() == expected


def test_of_two_gpus_the_first_is_computed_on(driver: FakeDriver) -> None:
    driver.gpus = [("NVIDIA GeForce RTX 4090", 8, 9), ("NVIDIA RTX PRO 6000", 12, 0)]
    driver.version = 12090
    assert [(gpu.name, gpu.compute_capability) for gpu in gpus()] == [
        ("NVIDIA GeForce RTX 4090", "8.9"),
        ("NVIDIA RTX PRO 6000", "12.0"),
    ]
    assert {gpu.cuda_version for gpu in gpus()} == {"12.9"}
    assert current_gpu() == gpus()[0]


def test_without_a_driver_there_is_no_gpu_and_nothing_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_driver, "_LIBRARY", "libno-such-driver.so.1")
    assert gpus() == ()
    with pytest.raises(
        DeviceError, match=r"no NVIDIA GPU .*no driver: libno-such.*nvidia-smi.*device=.cpu.$"
    ):
        current_gpu()


def test_a_driver_that_shows_no_gpu_has_none(driver: FakeDriver) -> None:
    """So CUDA_VISIBLE_DEVICES= looks."""
    driver.gpus = []
    assert gpus() == ()
    with pytest.raises(DeviceError, match=r"the driver reports none.*CUDA_VISIBLE_DEVICES"):
        current_gpu()


def test_what_to_do_without_a_gpu_is_the_callers_to_say(driver: FakeDriver) -> None:
    driver.gpus = []
    with pytest.raises(DeviceError, match=r"CUDA_VISIBLE_DEVICES; without a GPU stay at home$"):
        current_gpu("stay at home")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_driver_that_fails_has_no_gpu_and_says_where(driver: FakeDriver, function: str) -> None:
    driver.failures[function] = NO_DEVICE
    assert gpus() == ()
    with pytest.raises(DeviceError, match=rf"\({function} fails with CUDA error 100\)"):
        current_gpu()


def test_a_name_that_is_not_utf_8_is_a_name_all_the_same(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cuDeviceGetName(name: object, length: int, device: int) -> int:
        name.value = b"NVIDIA \xff"  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(driver, "cuDeviceGetName", cuDeviceGetName)
    assert gpus()[0].name == "NVIDIA \N{REPLACEMENT CHARACTER}"


def test_the_numbers_of_the_attributes_are_nvidias() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")
    attributes, statuses = driver.CUdevice_attribute, driver.CUresult
    assert attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == MAJOR == gpu_driver._MAJOR
    assert attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == MINOR == gpu_driver._MINOR
    assert statuses.CUDA_SUCCESS == gpu_driver._SUCCESS
    assert statuses.CUDA_ERROR_NO_DEVICE == NO_DEVICE


def test_this_machine_answers_one_way_or_the_other() -> None:
    found = gpus()
    if not found:
        with pytest.raises(DeviceError, match="no NVIDIA GPU"):
            current_gpu()
        return
    assert current_gpu() == found[0]
    assert all(float(gpu.compute_capability) >= 5 for gpu in found)
    assert all(gpu.name.isprintable() for gpu in found)


def test_asking_loads_nothing_but_the_standard_library() -> None:
    code = """
import sys
before = set(sys.modules)
from alexnet_deploy.runtimes.gpu_driver import gpus
gpus()
loaded = {name.split(".")[0] for name in set(sys.modules) - before}
print(*(loaded - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.split() == ["alexnet_deploy"]
