"""Times of cuDNN's own LRN, through ONNX Runtime, to compare with our kernel's."""

import statistics
import time
from typing import Any

import numpy as np
import onnx
from onnx import helper

from alexnet_deploy.model.spec import POOL_SIZE, POOL_STRIDE, preset_spec
from gpu_checks.check import Figures, Settings
from gpu_checks.kernel_reference import DTYPES
from gpu_checks.onnxruntime_gpu import need_cuda_build

BATCH = 256
BRANCHES = 8  # in one graph, so that the overhead per run is negligible
REPEATS = 15


def times(settings: Settings) -> Figures:
    """Return the microseconds of ReLU, LRN and max-pool on a batch of each layer, in both types.

    Raises:
        Skipped: this ONNX Runtime is a build for the CPU.
    """
    from alexnet_deploy.runtimes.onnxruntime_session import (
        load_cuda_libraries,
        onnxruntime_version,
    )

    need_cuda_build()
    load_cuda_libraries()
    layers = preset_spec("paper").layer_shapes()
    rows = []
    for layer in ("conv1", "conv2"):
        channels, height, width = layers[layer]
        folded = (2 * BATCH, channels // 2, height, width)  # towers folded into the batch
        for name, dtype in DTYPES.items():
            session, binding = _bound(graph(folded, dtype), folded, dtype)
            seconds = _seconds(session, binding) / BRANCHES
            rows.append({"layer": layer, "scalar": name, "microseconds": 1e6 * seconds})
    return {"batch": BATCH, "onnxruntime": onnxruntime_version(), "rows": rows}


def graph(shape: tuple[int, ...], dtype: str) -> onnx.ModelProto:
    """Return the same work in several branches, each with its own output, (N, C, H, W)."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes, outputs = [], []
    for branch in range(BRANCHES):
        names = [f"{name}{branch}" for name in ("relu", "lrn", "pool")]
        nodes += [
            helper.make_node("Relu", ["x"], [names[0]]),
            helper.make_node(
                "LRN", [names[0]], [names[1]], size=5, alpha=1e-4, beta=0.75, bias=2.0
            ),
            helper.make_node(
                "MaxPool",
                [names[1]],
                [names[2]],
                kernel_shape=[POOL_SIZE] * 2,
                strides=[POOL_STRIDE] * 2,
            ),
        ]
        outputs.append(helper.make_tensor_value_info(names[2], kind, _pooled(shape)))
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    made = helper.make_graph(nodes, "lrn", inputs, outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _pooled(shape: tuple[int, ...]) -> tuple[int, ...]:
    return *shape[:2], *((side - POOL_SIZE) // POOL_STRIDE + 1 for side in shape[2:])


def _bound(model: onnx.ModelProto, shape: tuple[int, ...], dtype: str) -> tuple[Any, Any]:
    """Open a session, captured as one CUDA graph, with everything on the GPU."""
    import onnxruntime

    from alexnet_deploy.runtimes.onnxruntime_session import CUDA

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Otherwise common subexpression elimination would leave only one branch.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=[(CUDA, {"device_id": "0", "enable_cuda_graph": "1"})],
        enable_fallback=0,
    )
    binding = session.io_binding()
    x = np.random.default_rng(0).standard_normal(shape, np.float32).astype(dtype)
    values = onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0)
    binding.bind_ortvalue_input("x", values)
    for output in session.get_outputs():
        place = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            list(_pooled(shape)), np.dtype(dtype).type, "cuda", 0
        )
        binding.bind_ortvalue_output(output.name, place)
    return session, binding


def _seconds(session: Any, binding: Any) -> float:
    """Return the median time of a run, which waits for the GPU."""
    taken = []
    for number in range(REPEATS + 3):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        if number >= 3:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)
