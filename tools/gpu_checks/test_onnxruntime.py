"""ONNX Runtime on the GPU: its results against the reference, its speed, and cuDNN's LRN."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import parser
from parity import BATCH, LAYERS

from alexnet_deploy.choices import FilePrecision
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.model.checkpoints import Checkpoint, load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.spec import POOL_SIZE, POOL_STRIDE, preset_spec
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.prepared import prepare
from alexnet_deploy.timing import seconds_of
from alexnet_deploy.verification.onnx import verify
from gpu_checks.kernel_reference import DTYPES
from gpu_checks.record import Figures
from gpu_checks.runner_rates import measure

pytestmark = pytest.mark.gpu("onnxruntime")

BATCHES = (1, 32, 256)
LRN_BATCH = 256
BRANCHES = 8  # of one graph, so that the overhead of a run is negligible
RUNS = 15


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_parity(
    precision: FilePrecision, figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export's verification, with every node on the GPU.

    An exhaustive search may choose one of cuDNN's convolutions that is inexact. Where fp32 fails,
    a heuristic search tells whether the graph is at fault.
    """
    from alexnet_deploy.runtimes import onnxruntime_cuda_runner

    fault = fault_of(precision, figures)
    if fault and precision == "fp32":
        options = onnxruntime_cuda_runner._PROVIDER_OPTIONS
        monkeypatch.setitem(options, "cudnn_conv_algo_search", "HEURISTIC")
        figures["heuristic"] = {}
        again = fault_of(precision, figures["heuristic"])
        fault += f"; with a heuristic search for convolutions {again or 'it is right'}"
    assert not fault, fault


def fault_of(precision: FilePrecision, figures: Figures) -> str:
    """Add node counts by provider and the verification; return what is wrong, "" if nothing is."""
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner
    from alexnet_deploy.runtimes.onnxruntime_session import CUDA

    file = build_file(bundled(), LAYERS, precision)
    options = RunnerOptions(runtime="onnxruntime", device="cuda", batch_size=BATCH, outputs=LAYERS)
    with OnnxRuntimeCudaRunner(prepare(file, "onnxruntime", "cuda"), options) as runner:
        nodes = {name: len(nodes) for name, nodes in (runner.placement or {}).items()}
        figures |= {"runs": runner.description, "nodes": nodes}
    if set(nodes) != {CUDA}:
        return "it is not shown that all of it runs on the GPU"
    report = verify(file, bundled(), varied_samples(), options)
    figures["verification"] = report.to_dict()["checks"]
    wrong = [check.name for check in report.checks if not check.passed]
    return f"{precision} is off in: {', '.join(wrong)}" if wrong else ""


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rates(precision: FilePrecision, figures: Figures) -> None:
    """The runner's rate by batch size."""
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import OnnxRuntimeCudaRunner

    outputs = ("probabilities", "fc7")
    network = prepare(build_file(bundled(), outputs, precision), "onnxruntime", "cuda")
    for batch in BATCHES:
        options = RunnerOptions(
            runtime="onnxruntime", device="cuda", batch_size=batch, outputs=outputs
        )
        with OnnxRuntimeCudaRunner(network, options) as runner:
            figures[f"batch_{batch}"] = measure(runner, uploading)


def bundled() -> Checkpoint:
    """Return the bundled checkpoint."""
    return load_checkpoint(bundled_checkpoint())


@contextmanager
def uploading(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    """Yield a function that copies a batch to the GPU as the runner does."""
    import onnxruntime

    place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(images.shape, np.uint8, "cuda", 0)
    yield lambda: place.update_inplace(images)


@pytest.mark.parametrize("scalar", DTYPES)
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_cudnn_lrn(layer: str, scalar: Any, figures: Figures) -> None:
    """The time of ReLU, cuDNN's own LRN and max-pool, to compare with our kernel's."""
    import onnxruntime

    from alexnet_deploy.runtimes.onnxruntime_session import CUDA, load_cuda_libraries

    load_cuda_libraries()
    channels, *side = preset_spec("paper").layer_shapes()[layer]
    shape = (2 * LRN_BATCH, channels // 2, *side)  # towers folded into the batch
    options = onnxruntime.SessionOptions()
    # Otherwise common subexpression elimination would leave only one branch.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        lrn_graph(shape, scalar).SerializeToString(),
        options,
        providers=[(CUDA, {"device_id": "0", "enable_cuda_graph": "1"})],
        enable_fallback=0,
    )
    binding = session.io_binding()
    x = np.random.default_rng(0).standard_normal(shape, np.float32).astype(DTYPES[scalar])
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0))
    for output in session.get_outputs():
        place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            output.shape, x.dtype.type, "cuda", 0
        )
        binding.bind_ortvalue_output(output.name, place)
    run = [seconds_of(lambda: session.run_with_iobinding(binding)) for _ in range(3 + RUNS)]
    seconds = statistics.median(run[3:]) / BRANCHES
    figures |= {"batch": LRN_BATCH, "microseconds": 1e6 * seconds}


def lrn_graph(shape: tuple[int, ...], scalar: Any) -> onnx.ModelProto:
    """Return the same work in several branches, each with its own output, (N, C, H, W)."""
    pooled = [*shape[:2], *((side - POOL_SIZE) // POOL_STRIDE + 1 for side in shape[2:])]
    kind = {"float": "float", "half": "float16"}[scalar]
    outputs, nodes = [], []
    for name in map(str, range(BRANCHES)):
        outputs.append(f"{kind}{pooled} y{name}")
        nodes.append(
            f"relu{name} = Relu(x) "
            f"lrn{name} = LRN <size = 5, alpha = 0.0001, beta = 0.75, bias = 2.0> (relu{name}) "
            f"y{name} = MaxPool <kernel_shape = {[POOL_SIZE] * 2}, strides = {[POOL_STRIDE] * 2}>"
            f" (lrn{name})"
        )
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"lrn ({kind}{list(shape)} x) => ({', '.join(outputs)}) {{ {' '.join(nodes)} }}"
    )
    return parser.parse_model(text)
