"""The runner of TensorRT and TensorRT-RTX engines, over fakes of their classes and of CUDA.

The dolls take what the real classes take; the context computes something simple on the memory that
it was told of, when the stream is waited for, as on a GPU.
"""

import dataclasses
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy import installed
from alexnet_deploy.errors import (
    DeviceError,
    IncompatibleFileError,
    MissingPackageError,
    UsageError,
)
from alexnet_deploy.runtimes import tensorrt_library as library_module
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import LEAN_PACKAGE
from alexnet_deploy.runtimes.factory import open_engine_file
from alexnet_deploy.runtimes.tensorrt_library import Library
from tests.support.networks import noise
from tests.support.trt_stub.fake_runtime import (
    FILE,
    OPTIONS,
    PORTABLE,
    SPEC,
    FakeRuntime,
    Open,
    computed,
)
from tests.support.waiting import PATIENCE_S, wait_until

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
pytest_plugins = ["tests.support.trt_stub.fixtures", "tests.support.trt_stub.engine_fixtures"]


def test_a_batch_goes_up_and_the_wanted_layers_come_back(open_runner: Open) -> None:
    images = noise(SPEC, 2)
    with open_runner() as runner:
        outputs = runner.run(images)
    assert list(outputs) == ["fc7", "probabilities"]
    for name, value in outputs.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, computed(images, name))


def test_a_result_stays_as_it_is_when_the_engine_runs_again_or_is_closed(
    open_runner: Open,
) -> None:
    images = noise(SPEC, 2, seed=1)
    with open_runner() as runner:
        first = runner.run(images)
        second = runner.run(noise(SPEC, 2, seed=2))
    assert not (first["fc7"] == second["fc7"]).any()
    np.testing.assert_array_equal(first["fc7"], computed(images, "fc7"))


def test_a_batch_is_staged_while_the_one_before_it_is_computed(
    open_runner: Open, fake: FakeRuntime, cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronize, on_gpu, gate = cuda.cudaStreamSynchronize, threading.Semaphore(0), list[str]()

    def waiting(stream: Any) -> Any:
        on_gpu.release()
        wait_until(lambda: gate)
        return synchronize(stream)

    batches = [noise(SPEC, 2, seed=seed) for seed in range(6)]
    with open_runner() as runner, ThreadPoolExecutor(2) as threads:
        monkeypatch.setattr(cuda, "cudaStreamSynchronize", waiting, raising=False)
        calls = [threads.submit(runner.run, images) for images in batches]
        assert on_gpu.acquire(timeout=PATIENCE_S)
        staged = [host.images.array for host in runner._host]
        wait_until(lambda: all((a == b).all() for a, b in zip(staged, batches, strict=False)))
        assert not on_gpu.acquire(timeout=0.05), "the GPU's memory is that of one batch"
        gate.append("open")
        for images, call in zip(batches, calls, strict=True):
            np.testing.assert_array_equal(call.result()["fc7"], computed(images, "fc7"))


def test_the_shape_is_set_once_before_the_places_and_both_before_any_batch(
    open_runner: Open, fake: FakeRuntime
) -> None:
    with open_runner() as runner:
        for seed in range(3):
            runner.run(noise(SPEC, 2, seed=seed))
    context = "IExecutionContext."
    steps = [step.removeprefix(context) for step in fake.journal if step.startswith(context)]
    assert steps[:5] == ["set_input_shape"] + ["set_tensor_address"] * 4
    assert set(steps[5:]) == {"execute_async_v3"}
    assert fake.input_shape == (2, 224, 224, 3)


def test_the_plan_is_loaded_as_it_is(open_runner: Open, fake: FakeRuntime) -> None:
    open_runner()
    asked = [("get_engine_validity", b"plan")] if fake.is_rtx else []
    assert fake.runtime.calls == [*asked, ("deserialize_cuda_engine", b"plan")]


def test_tensorrt_rtx_compiles_for_the_one_shape_before_the_first_batch(
    open_runner: Open, fake: FakeRuntime
) -> None:
    open_runner()
    made = [call for call in fake.engine.calls if call[0].startswith("create_")]
    if not fake.is_rtx:
        assert made == [("create_execution_context",)]
        return
    assert made == [("create_runtime_config",), ("create_execution_context", fake.config)]
    eager = fake.trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert fake.config.calls == [
        ("dynamic_shapes_kernel_specialization_strategy=", eager),
        ("cuda_graph_strategy=", fake.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE),
    ]


def test_only_wanted_layers_are_copied_back(open_runner: Open, cuda: Any) -> None:
    """On the host two batches and these have room; on the GPU one, and all outputs."""
    layers = SPEC.layer_shapes()
    image = 2 * 224 * 224 * 3
    sizes = {name: 2 * 4 * int(np.prod(layers[name])) for name in FILE.record.outputs}
    open_runner(dataclasses.replace(OPTIONS, outputs=("fc7",)))
    there: dict[str, list[int]] = {"host": [], "device": []}
    for side, block in cuda.memory.values():
        there[side].append(len(block))
    assert sorted(there["host"]) == sorted(2 * [image, sizes["fc7"]])
    assert sorted(there["device"]) == sorted([image, *sizes.values()])


def test_what_runs_is_described(open_runner: Open, library: Library) -> None:
    version = "TensorRT 11.4.0.106"
    if library.runtime == "tensorrt-rtx":
        version = f"TensorRT-RTX {library.module.__version__}"
    with open_runner() as runner:
        assert runner.description == f"{version}, NVIDIA Fake 100, fp32, batch 2"
        assert runner.options == dataclasses.replace(
            OPTIONS, runtime=library.runtime, device="cuda", precision="fp32"
        )
        assert runner.spec == SPEC
        assert runner.identity == "f" * 64


def test_a_batch_of_another_shape_or_type_is_refused(open_runner: Open) -> None:
    images = noise(SPEC, 2)
    with open_runner() as runner:
        for wrong in (images[:0], images[[0, 1, 0]], images[:, :223], images.astype(np.float32)):
            with pytest.raises(UsageError, match=r"the runner takes \(1..2, 224, 224, 3\) uint8"):
                runner.run(wrong)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_a_batch_outside_of_the_profile_is_refused_naming_both(
    open_runner: Open, batch: int
) -> None:
    message = f"batch_size={batch}: m.engine was built for 2 to 4 images a batch"
    with pytest.raises(UsageError, match=message):
        open_runner(dataclasses.replace(OPTIONS, batch_size=batch))


@pytest.mark.parametrize(("asked", "runs"), [(1, 2), (2, 2), (3, 3), (4, 4), (32, 4)])
def test_a_batch_that_nobody_asked_for_is_the_nearest_that_the_engine_takes(
    open_runner: Open, fake: FakeRuntime, asked: int, runs: int
) -> None:
    options = dataclasses.replace(OPTIONS, batch_size=asked, exact_batch=False)
    with open_runner(options) as runner:
        assert runner.options.batch_size == runs
        assert runner.description.endswith(f"batch {runs}")
        assert fake.input_shape == (runs, 224, 224, 3)
        assert runner.run(noise(SPEC, runs))["fc7"].shape == (runs, 4096)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("fc7", "conv1", "fc6"), "layers conv1, fc6: m.engine was built for probabilities, fc7"),
        (("fc9",), "layer 'fc9' does not exist"),
        ((), "one or more"),
    ],
)
def test_a_layer_that_the_engine_does_not_compute_is_refused(
    open_runner: Open, outputs: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_runner(dataclasses.replace(OPTIONS, outputs=outputs))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cpu"}, DeviceError, r'device="cpu": m.engine runs with \S+ on a GPU only'),
        ({"runtime": "openvino"}, DeviceError, 'runtime="openvino"'),
        ({"precision": "bf16"}, DeviceError, 'precision="bf16": m.engine computes in fp32'),
        ({"threads": 2}, UsageError, "threads=2: an engine runs on the GPU; leave it out"),
    ],
)
def test_options_that_an_engine_cannot_obey_are_refused(
    open_runner: Open, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_runner(dataclasses.replace(OPTIONS, **options))


def test_an_engine_of_another_machine_is_refused_before_it_is_loaded(
    open_runner: Open, fake: FakeRuntime
) -> None:
    changed = {"runtime_version": "0.1", "compute_capabilities": ("8.0",)}
    with pytest.raises(IncompatibleFileError) as caught:
        open_runner(**changed)
    version = f"{fake.library.name} 0.1, here is {fake.library.version()}"
    for part in (version, "capability 8.0, here is 9.0"):
        assert part in str(caught.value)
    # The GPU of the fake driver is of 9.0, for which TensorRT-RTX does not build.
    assert str(caught.value).endswith("--trt -o FILE")
    assert fake.journal == []


@pytest.mark.parametrize("library", ["tensorrt"], indirect=True)
def test_on_another_gpu_it_is_said_and_so_is_what_tensorrt_warns_of(
    open_runner: Open, fake: FakeRuntime
) -> None:
    """Of a MIG slice, for instance, with fewer multiprocessors than the kernels were chosen for."""

    def loaded(_: bytes) -> Any:
        severity = fake.trt.ILogger.Severity
        fake.library.logger.log(severity.WARNING, "supports 16 multiprocessors, requires 132")
        return fake.engine

    fake.runtime.answers["deserialize_cuda_engine"] = loaded
    with open_runner(gpu_name="NVIDIA H100") as runner:
        assert runner.description == (
            f"TensorRT {fake.library.version()}, NVIDIA Fake 100, built on NVIDIA H100, fp32, "
            "batch 2; TensorRT warns: supports 16 multiprocessors, requires 132"
        )


@pytest.mark.parametrize("library", ["tensorrt"], indirect=True)
def test_a_later_version_loads_the_lean_runtime_of_the_engines_and_that_the_plan(
    open_runner: Open, fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = fake.library.version()
    if installed.version_of(LEAN_PACKAGE) != built:
        pytest.skip(f"needs: pip install {LEAN_PACKAGE}=={built}")
    monkeypatch.setattr(fake.trt, "__version__", "11.99.0.1")
    lean = fake.doll(fake.runtime.real, deserialize_cuda_engine=lambda plan: fake.engine)
    paths: list[str] = []

    def load_runtime(path: str) -> Any:
        paths.append(path)
        return lean

    fake.runtime.answers.update(load_runtime=load_runtime, deserialize_cuda_engine=None)
    with open_runner(version_compatible=True) as runner:
        assert list(runner.run(noise(SPEC, 2))) == ["fc7", "probabilities"]
    (path,) = paths
    assert Path(path).read_bytes()[:4] == b"\x7fELF"
    assert Path(path).name == "libnvinfer_lean.so.11"
    fake.runtime.answers["load_runtime"] = None
    with pytest.raises(DeviceError, match=rf"\S+lean\S+, which runs engines of {built}"):
        open_runner(version_compatible=True)


def test_without_a_gpu_no_engine_is_opened(open_runner: Open, driver: Any) -> None:
    driver.gpus = []
    with pytest.raises(DeviceError, match="no NVIDIA GPU that this process may use"):
        open_runner()


def test_without_a_gpu_nothing_need_be_installed_to_be_told_so(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "_LOADED", {})
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    file = dataclasses.replace(FILE, record=PORTABLE)
    with pytest.raises(MissingPackageError, match=r"'alexnet-deploy\[rtx\]'"):
        open_engine_file(file, OPTIONS)
    driver.gpus = []
    with pytest.raises(DeviceError, match="no NVIDIA GPU"):
        open_engine_file(file, OPTIONS)


def test_what_can_be_built_instead_is_asked_of_the_library(
    open_runner: Open, fake: FakeRuntime, driver: Any
) -> None:
    driver.gpus = [("NVIDIA Fake 100", 12, 0)]
    with pytest.raises(IncompatibleFileError) as caught:
        open_runner(compute_capabilities=("8.0",))
    options = "--rtx --compute-capability 12.0" if fake.is_rtx else "--trt"
    assert str(caught.value).endswith(f"export CKPT {options} -o FILE")


@pytest.mark.parametrize("library", ["tensorrt"], indirect=True)
def test_tensorrt_10_is_refused(
    open_runner: Open, fake: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake.trt, "__version__", "10.16.0.72")
    with pytest.raises(DeviceError, match=r"TensorRT 10\.16\.0\.72 is installed, expected 11\.4"):
        open_runner()


@pytest.mark.parametrize("library", ["tensorrt-rtx"], indirect=True)
@pytest.mark.parametrize(
    ("reason", "error", "message"),
    [
        ("UNSUPPORTED_CC", DeviceError, r"cannot run here \(UNSUPPORTED_CC\)"),
        ("VERSION_MISMATCH", IncompatibleFileError, r"not an engine that .*\(VERSION_MISMATCH\)"),
    ],
)
def test_what_tensorrt_rtx_says_of_a_plan_is_asked_before_it_is_loaded(
    open_runner: Open, fake: FakeRuntime, reason: str, error: type[Exception], message: str
) -> None:
    bits = int(fake.trt.EngineInvalidityDiagnostics.__members__[reason])
    fake.validity = (fake.trt.EngineValidity.INVALID, bits)
    with pytest.raises(error, match=message):
        open_runner()
    assert fake.runtime.calls == [("get_engine_validity", b"plan")]


def test_a_plan_that_the_library_refuses_is_an_error_with_its_reason(
    open_runner: Open, fake: FakeRuntime
) -> None:
    log, kinds = fake.library.logger, fake.trt.ILogger.Severity

    def refuse(plan: bytes) -> None:
        log.log(kinds.WARNING, "by the way")
        log.log(kinds.ERROR, "magicTag does not match\n")

    fake.runtime.answers["deserialize_cuda_engine"] = refuse
    with pytest.raises(
        IncompatibleFileError, match=r"TensorRT\S* cannot load it \(magicTag does not match\)"
    ):
        open_runner()


@pytest.mark.parametrize("part", range(3))
@pytest.mark.parametrize("name", ["images", "fc7"])
def test_a_plan_that_is_not_what_its_record_says_is_refused(
    open_runner: Open, fake: FakeRuntime, name: str, part: int
) -> None:
    trt = fake.trt
    wrong = (trt.TensorIOMode.NONE, trt.DataType.HALF, (-1, 4, 4, 3))
    tensor = list(fake.tensors[name])
    tensor[part] = wrong[part]
    fake.tensors[name] = (tensor[0], tensor[1], tensor[2])
    with pytest.raises(IncompatibleFileError, match="the tensors of the plan are"):
        open_runner()


def test_a_plan_with_other_outputs_or_batches_is_refused(
    open_runner: Open, fake: FakeRuntime
) -> None:
    with pytest.raises(IncompatibleFileError, match="the tensors of the plan are"):
        open_runner(outputs=("fc7", "probabilities"))
    with pytest.raises(IncompatibleFileError, match="the batches of the plan are"):
        open_runner(profile=BatchProfile(min=1, opt=2, max=4))


@pytest.mark.parametrize(
    ("call", "answer", "error", "message"),
    [
        ("create_execution_context", None, DeviceError, "smaller profile.max$"),
        ("set_input_shape", False, IncompatibleFileError, "does not take"),
        ("set_tensor_address", False, DeviceError, "no buffer for images"),
    ],
)
def test_no_refusal_of_tensorrt_is_overlooked(
    open_runner: Open,
    fake: FakeRuntime,
    cuda: Any,
    call: str,
    answer: object,
    error: type[Exception],
    message: str,
) -> None:
    (fake.engine if call.startswith("create") else fake.context).answers[call] = answer
    with pytest.raises(error, match=message):
        open_runner()
    assert cuda.memory == {}
