"""ONNX Runtime on a GPU: the whole runner with the CPU in the GPU's place, and on a real one.

`PretendedGpu` is the real library, called with the real names and arguments; only where it is told
"cuda" it takes the CPU. What only a GPU can show is in the last tests, skipped without one.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from alexnet_deploy.choices import Precision
from alexnet_deploy.errors import ClosedError, DeviceError, IncompatibleFileError, UsageError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.casting import cast_model
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.runtimes import gpu_driver
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.runtimes.prepared import prepare
from tests.support.networks import noise, random_checkpoint, relative_error

if TYPE_CHECKING:
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner
    from tests.support.pretended_gpu import PretendedGpu

MODULE = "alexnet_deploy.runtimes.onnxruntime_cuda_runner"
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "fp16": 1e-2}  # rounding: 1e-6 and 1e-3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> "PretendedGpu":
    from tests.support.pretended_gpu import pretend

    return pretend(monkeypatch)


def model(precision: Precision = "fp32", preset: str = "paper") -> ModelFile:
    file = build_model(random_checkpoint(preset), ("probabilities", "fc7"))
    return cast_model(file, "fp16") if precision == "fp16" else file


def cuda_runner(file: ModelFile, options: RunnerOptions) -> "OnnxRuntimeCudaRunner":
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner

    return OnnxRuntimeCudaRunner(prepare(file, "onnxruntime", "cuda"), options)


def options(**changed: Any) -> RunnerOptions:
    settings: dict[str, Any] = {"batch_size": 2, "outputs": ("fc7",)}
    return RunnerOptions(**(settings | changed))


@pytest.mark.parametrize(
    ("preset", "precision"), [*((preset, "fp32") for preset in PRESET_NAMES), ("paper", "fp16")]
)
def test_every_layer_equals_the_reference(
    gpu: "PretendedGpu", preset: str, precision: Precision
) -> None:
    file = model(precision, preset)
    images = noise(file.spec, 2)
    expected = Reference(random_checkpoint(preset), np.float64).run(images)
    with cuda_runner(file, options(outputs=tuple(expected))) as runner:
        actual = runner.run(images)
    assert list(actual) == list(expected)
    for name, value in actual.items():
        assert value.dtype == np.float32
        assert relative_error(value, expected[name]) < TOLERANCES[precision], name


def test_the_outputs_are_those_of_the_cpu_engine(gpu: "PretendedGpu") -> None:
    chosen = {"outputs": ("logits", "norm2"), "batch_size": 3}
    images = noise(model().spec, 3)
    on_the_cpu = options(**chosen, runtime="onnxruntime", device="cpu")
    with open_runner(model(), on_the_cpu) as on_cpu:
        expected = on_cpu.run(images)
    with cuda_runner(model(), options(**chosen)) as runner:
        actual = runner.run(images)
    for name in ("logits", "norm2"):  # the CPU runner's LRN is another form of the same
        assert relative_error(actual[name], expected[name]) < 1e-5


def test_a_result_stays_as_it_is_when_the_engine_runs_again(gpu: "PretendedGpu") -> None:
    with cuda_runner(model(), options()) as runner:
        first = runner.run(noise(runner.spec, 2, seed=1))["fc7"]
        kept = first.copy()
        assert (runner.run(noise(runner.spec, 2, seed=2))["fc7"] != kept).any()
    np.testing.assert_array_equal(first, kept)


def test_memory_is_taken_once_and_the_graph_captured_before_the_first_batch(
    gpu: "PretendedGpu",
) -> None:
    with cuda_runner(model(), options(outputs=("logits", "fc7"))) as runner:
        opened = [
            *("severity 3", "preload", f"session on {CUDA}"),
            *("memory (2, 224, 224, 3)", "memory (2, 11)", "memory (2, 4096)", "run"),
        ]
        assert gpu.calls == opened
        runner.run(noise(runner.spec, 2))
        runner.run(noise(runner.spec, 2))
    assert gpu.calls == [*opened, "run", "run"]


def test_the_session_is_told_all_that_makes_it_fast_right_and_alone(gpu: "PretendedGpu") -> None:
    cuda_runner(model(), options(threads=3)).close()
    ((provider, session),) = gpu.sessions
    assert provider == {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "use_tf32": "0",
        "enable_cuda_graph": "1",
        "do_copy_in_default_stream": "1",
    }
    assert session.entries == {
        "session.disable_cpu_ep_fallback": "1",
        "session.record_ep_graph_assignment_info": "1",
    }
    assert session.dimensions == {"N": 2}
    assert session.intra_op_num_threads == 3


@pytest.mark.parametrize("precision", TOLERANCES)
def test_what_runs_is_described(gpu: "PretendedGpu", precision: Precision) -> None:
    with cuda_runner(model(precision), options()) as runner:
        assert (runner.options.runtime, runner.options.device) == ("onnxruntime", "cuda")
        assert runner.options.precision == precision
        assert set(runner.placement) == {CUDA}
        assert "norm1_lrn" in runner.placement[CUDA]
        for part in ("ONNX Runtime", "CUDA on NVIDIA Pretence", precision, "batch 2"):
            assert part in runner.description


def test_a_session_that_has_no_node_on_the_gpu_proves_nothing(
    gpu: "PretendedGpu", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.node_placement", lambda session: {})
    with pytest.raises(DeviceError, match="would not run all of it on the GPU"):
        cuda_runner(model(), options())
    assert "run" not in gpu.calls


@pytest.mark.parametrize("obeys", [True, False])
def test_a_node_that_would_run_on_the_cpu_is_refused_by_its_name(
    gpu: "PretendedGpu", obeys: bool
) -> None:
    gpu.nodes_on_cpu, gpu.obeys = {"norm1_lrn", "norm2_lrn"}, obeys
    with pytest.raises(DeviceError, match="norm1_lrn, norm2_lrn"):
        cuda_runner(model(), options())
    assert "run" not in gpu.calls


def test_a_provider_that_does_not_start_is_not_replaced_by_the_cpu(gpu: "PretendedGpu") -> None:
    gpu.starts = False
    with pytest.raises(DeviceError, match=r"does not start, for the reason above.*\[cuda,cudnn\]"):
        cuda_runner(model(), options())
    assert gpu.calls.index("severity 2") > gpu.calls.index("severity 3"), "or it does not say it"


def test_libraries_that_are_missing_are_named(
    gpu: "PretendedGpu", capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.starts, gpu.missing = False, "Failed to load libcublas.so.13: libcublas.so.13: no file"
    with pytest.raises(DeviceError, match=r"GPU: libcublas.so.13: no file; .*pip install.*cudnn"):
        cuda_runner(model(), options())
    assert capsys.readouterr().out == ""


def test_a_graph_that_no_device_knows_is_an_incompatible_file(gpu: "PretendedGpu") -> None:
    file = model()
    file.graph.graph.node[3].op_type = "Convolve"
    with pytest.raises(IncompatibleFileError, match=r"Convolve.*export the checkpoint again"):
        cuda_runner(file, options())


@pytest.mark.parametrize("is_theirs", [True, False])
def test_a_gpu_that_fails_is_a_device_error(gpu: "PretendedGpu", is_theirs: bool) -> None:
    error = gpu.Failure("CUDA failure 2: out of memory") if is_theirs else RuntimeError("cudnn")
    gpu.run_error = error
    with pytest.raises(DeviceError, match=f"{error}.*batch_size"):
        cuda_runner(model(), options())
    gpu.run_error = None
    with cuda_runner(model(), options()) as runner:
        gpu.run_error = error
        with pytest.raises(DeviceError, match=f"failed on the GPU .{error}"):
            runner.run(noise(runner.spec, 2))


def test_a_fault_of_ours_keeps_its_traceback(gpu: "PretendedGpu") -> None:
    gpu.run_error = TypeError("ours")
    with pytest.raises(TypeError, match="ours"):
        cuda_runner(model(), options())


def test_without_a_gpu_cuda_is_refused(
    gpu: "PretendedGpu", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.current_gpu", gpu_driver.current_gpu)
    monkeypatch.setattr(gpu_driver, "_LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(DeviceError, match=r'no NVIDIA GPU.*device="cpu"'):
        cuda_runner(model(), options())
    assert gpu.calls == []


def test_the_cpu_build_is_refused_with_the_way_to_the_other(
    gpu: "PretendedGpu", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    message = r"build for the CPU; pip uninstall onnxruntime, .*'alexnet-deploy\[gpu\]'"
    with pytest.raises(DeviceError, match=message):
        cuda_runner(model(), options())


def test_a_batch_of_another_shape_or_type_is_refused(gpu: "PretendedGpu") -> None:
    images = noise(model().spec, 2)
    with cuda_runner(model(), options()) as runner:
        for wrong in (images[:0], images[[0, 1, 0]], images[:, :223], images.astype(np.float32)):
            with pytest.raises(UsageError, match=r"the runner takes \(1..2, 224, 224, 3\) uint8"):
                runner.run(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file_precision", "asked", "error"),
    [
        ("fp32", "fp16", UsageError),
        ("fp16", "fp32", UsageError),
        ("fp32", "bf16", DeviceError),
        ("fp32", "int8", DeviceError),
    ],
)
def test_a_precision_that_is_not_the_files_is_refused(
    gpu: "PretendedGpu", file_precision: Precision, asked: Precision, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f'precision="{asked}"'):
        cuda_runner(model(file_precision), options(precision=asked))
    assert gpu.calls == []


@pytest.mark.parametrize("outputs", [("fc9",), (), ("fc7", "fc7")])
def test_layers_that_do_not_exist_are_refused(
    gpu: "PretendedGpu", outputs: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match="layer"):
        cuda_runner(model(), options(outputs=outputs))


def test_a_closed_engine_does_not_run(gpu: "PretendedGpu") -> None:
    runner = cuda_runner(model(), options())
    runner.close()
    runner.close()
    with pytest.raises(ClosedError, match="is closed; open it again"):
        runner.run(noise(runner.spec, 2))


@pytest.fixture(scope="module", params=TOLERANCES)
def real(request: pytest.FixtureRequest) -> Iterator["OnnxRuntimeCudaRunner"]:
    layers = tuple(model().spec.layer_shapes())
    chosen = options(outputs=layers, batch_size=4)
    with cuda_runner(model(request.param), chosen) as runner:
        yield runner


@pytest.mark.gpu("onnxruntime")
def test_on_a_gpu_every_layer_equals_the_reference(real: "OnnxRuntimeCudaRunner") -> None:
    for seed in (1, 2):  # the second is the captured graph with other pixels
        images = noise(real.spec, 4, seed=seed)
        expected = Reference(random_checkpoint("paper"), np.float64).run(images)
        actual = real.run(images)
        for name, value in actual.items():
            tolerance = TOLERANCES[real.options.precision or "fp32"]
            assert relative_error(value, expected[name]) < tolerance, name


@pytest.mark.gpu("onnxruntime")
def test_on_a_gpu_no_node_is_anywhere_else(real: "OnnxRuntimeCudaRunner") -> None:
    assert set(real.placement) == {CUDA}
    assert {"pixels", "norm1_lrn", "fc7_pre"} <= set(real.placement[CUDA])


@pytest.mark.gpu("onnxruntime")
def test_on_a_gpu_the_provider_took_the_options(real: "OnnxRuntimeCudaRunner") -> None:
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import _PROVIDER_OPTIONS

    bound = real._bound
    assert bound is not None
    taken = bound._session.get_provider_options()[CUDA]
    for name, value in _PROVIDER_OPTIONS.items():
        assert taken[name] == value


@pytest.mark.gpu("onnxruntime")
def test_on_a_gpu_a_photographs_result_does_not_depend_on_its_neighbours(
    real: "OnnxRuntimeCudaRunner",
) -> None:
    images = noise(real.spec, 4)
    padded = images.copy()
    padded[1:] = 0
    alone, together = real.run(padded)["fc7"][0], real.run(images)["fc7"][0]
    # Rounding at most: the libraries may add up in another order from run to run.
    assert relative_error(alone, together) < TOLERANCES[real.options.precision or "fp32"] / 10


@pytest.mark.gpu("onnxruntime")
def test_on_a_gpu_a_result_stays_as_it_is_when_the_engine_runs_again(
    real: "OnnxRuntimeCudaRunner",
) -> None:
    first = real.run(noise(real.spec, 4, seed=1))["fc7"]
    kept = first.copy()
    real.run(noise(real.spec, 4, seed=2))
    np.testing.assert_array_equal(first, kept)
