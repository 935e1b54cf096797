"""Compare the LRN kernel's speed with the GPU's memory bandwidth and with torch.

    python tools/lrn_bandwidth.py [--batch 256] [--json FILE]

The floor is the time to move the input and the output once, at the speed of a plain copy on this
GPU in the same round. The kernel is timed alone (`tower_lrn`) and fused with the ReLU before and
the max-pool after it (`relu_tower_lrn_pool`), on both layers of the paper's network, float16
in both layouts: NCHW, and HWC8, which is torch's channels-last. So are torch's
`local_response_norm`, with the towers folded into the batch, and the banded 1x1 convolution of the
squares. They and the copy take turns, round after round, on a warmed-up GPU. The kernel's results
are first compared with float64. Needs an NVIDIA GPU, torch, and the packages of
`alexnet-deploy[tensorrt]` except TensorRT.
"""

import argparse
import ctypes
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cuda.bindings import driver
from gpu_checks.kernel_reference import DTYPES, TOLERANCES
from gpu_checks.torch_clock import gpu_seconds

from alexnet_deploy import installed
from alexnet_deploy.errors import AlexNetDeployError, DeviceError
from alexnet_deploy.timing import in_turns, median_ratio
from alexnet_deploy.trt.kernel import Hwc8Kernel, Scalar, TowerLrnKernel, compile_ptx

LAYERS = {"conv1": (96, 55, 55), "conv2": (256, 27, 27)}
KINDS: tuple[tuple[Scalar, str], ...] = (("float", "linear"), ("half", "linear"), ("half", "hwc8"))
FORMS = ("kernel", "torch", "banded")
COPY_BYTES = 512 << 20  # ten times the L2 cache of an H200, four times that of a B200
COPIES = 2  # in one CUDA graph
CALLS = 12  # in one CUDA graph, to amortize the launch overhead
ROTATION = 3  # rotating inputs and outputs, so that no call finds its own in the cache
ROUNDS = 15
WARM_UP_S = 0.5  # until an idle GPU has reached its full clock

Operation = Callable[[torch.Tensor], torch.Tensor]
Seconds = Mapping[str, Sequence[float]]


def measure(batch: int = 256) -> dict[str, Any]:
    """Check and time both kernels and their peers on both layers in each dtype and layout.

    Returns:
        `device`, `date`, `versions`, `batch`, `copy_gb_per_s` (bytes read and written: `lowest`,
        `median`, `highest` of all rounds), and `rows`: for each `layer`, `scalar`, `layout`,
        `fused` and `form` (one of `FORMS`) the `microseconds` of a call, `share_of_copy` (floor /
        time), both medians over the rounds, and, for the kernel, `max_error` (relative to float64,
        or to the smallest normal number).

    Raises:
        AlexNetDeployError: no GPU, or the kernel's results are wrong.
    """
    if not torch.cuda.is_available():
        raise DeviceError("tools/lrn_bandwidth.py: torch finds no NVIDIA GPU here; run it on one")
    torch.manual_seed(0)
    copy = _captured_copy()
    rows: list[dict[str, Any]] = []
    copies: list[float] = []
    for layer, (scalar, layout), fused in product(LAYERS, KINDS, (True, False)):
        kernel = _kernel(layer, scalar, layout, fused)
        error, seconds = _timed(kernel, batch, copy)
        case = {"layer": layer, "scalar": scalar, "layout": layout, "fused": fused}
        rows += [case | row for row in summaries(seconds, bytes_moved(kernel, batch))]
        rows[-len(FORMS)]["max_error"] = error
        copies += seconds["copy"]
    rates = [2 * COPY_BYTES / each / 1e9 for each in copies]
    return {
        "device": torch.cuda.get_device_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "torch": str(torch.__version__),
            "cuda-bindings": installed.version_of("cuda-bindings"),
            "cuda_of_driver": _called(driver.cuDriverGetVersion),
        },
        "batch": batch,
        "copy_gb_per_s": {
            "lowest": round(min(rates), 1),
            "median": round(statistics.median(rates), 1),
            "highest": round(max(rates), 1),
        },
        "rows": rows,
    }


def summaries(seconds: Seconds, num_bytes: int) -> list[dict[str, Any]]:
    """Return `form`, `microseconds` and `share_of_copy` of each form.

    Args:
        seconds: per call of each of `FORMS`, and of a `copy`, by round.
        num_bytes: that a call must move.
    """
    floor = num_bytes / (2 * COPY_BYTES)  # in copies
    return [
        {
            "form": form,
            "microseconds": round(statistics.median(seconds[form]) * 1e6, 1),
            "share_of_copy": round(floor * median_ratio(seconds["copy"], seconds[form]), 3),
        }
        for form in FORMS
    ]


def bytes_moved(kernel: TowerLrnKernel, batch: int) -> int:
    """Return the bytes of a batch's input and output, each counted once."""
    size: int = getattr(torch, DTYPES[kernel.scalar]).itemsize
    inputs = kernel.channels * kernel.height * kernel.width
    return batch * (inputs + torch.Size(kernel.output_shape()).numel()) * size


def _kernel(layer: str, scalar: Scalar, layout: str, fused: bool) -> TowerLrnKernel:
    channels, height, width = LAYERS[layer]
    kind = Hwc8Kernel if layout == "hwc8" else TowerLrnKernel
    return kind(
        scalar=scalar,
        channels=channels,
        height=height,
        width=width,
        size=5,
        alpha=1e-4,
        beta=0.75,
        k=2.0,
        towers=2,
        fused=fused,
    )


class _Captured:
    """Several calls as one CUDA graph, with their inputs and outputs, which must live as long."""

    def __init__(self, operation: Operation, inputs: Sequence[torch.Tensor], calls: int) -> None:
        """Capture calls on `inputs` in turn; consecutive calls write to different memory."""
        self._operation, self._inputs, self._calls = operation, inputs, calls
        for x in inputs:  # warm up
            operation(x)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            kept: list[torch.Tensor] = []
            for call in range(calls):
                kept = [*kept, operation(inputs[call % len(inputs)])][-ROTATION:]

    def seconds(self) -> float:
        """Return the time of one call."""
        return gpu_seconds(self._graph.replay) / self._calls


def _captured_copy() -> _Captured:
    source = torch.zeros(COPY_BYTES // 4, device="cuda")
    return _Captured(torch.empty_like(source).copy_, [source], COPIES)


def _timed(kernel: TowerLrnKernel, batch: int, copy: _Captured) -> tuple[float, Seconds]:
    """Check a kernel; return its error, and the seconds per call of each form and of a copy."""
    inputs = [_activations(kernel, batch) for _ in range(ROTATION)]
    launch = _launcher(kernel)
    error = _largest_error(kernel, inputs[0], launch(inputs[0]))
    operations: Mapping[str, Operation] = {
        "kernel": launch,
        "torch": functools.partial(by_torch, kernel),
        "banded": banded(kernel, "cuda"),
    }
    captured = {form: _Captured(operations[form], inputs, CALLS) for form in FORMS}
    timers = {form: each.seconds for form, each in captured.items()}
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_UP_S:
        copy.seconds()
    seconds = in_turns({"copy": copy.seconds, **timers}, ROUNDS)
    del captured, timers
    torch.cuda.empty_cache()
    return error, seconds


def _activations(kernel: TowerLrnKernel, batch: int) -> torch.Tensor:
    """Return inputs with the magnitudes of the paper's network: up to a few hundred."""
    shape = (batch, kernel.channels, kernel.height, kernel.width)
    x = (50 * torch.randn(shape, device="cuda")).to(getattr(torch, DTYPES[kernel.scalar]))
    return x.to(memory_format=_memory_format(kernel))


def _memory_format(kernel: TowerLrnKernel) -> torch.memory_format:
    return torch.channels_last if isinstance(kernel, Hwc8Kernel) else torch.contiguous_format


def _launcher(kernel: TowerLrnKernel) -> Operation:
    """Load a kernel for this GPU; the returned function launches it on torch's stream."""
    major, minor = torch.cuda.get_device_capability()
    torch.cuda.current_stream().synchronize()  # makes torch's context current
    ptx = compile_ptx(kernel, f"compute_{major}{minor}")
    module = _called(driver.cuModuleLoadData, ptx + b"\0")
    function = _called(driver.cuModuleGetFunction, module, kernel.name.encode())

    def launch(x: torch.Tensor) -> torch.Tensor:
        output = torch.empty(
            (len(x), *kernel.output_shape()),
            device=x.device,
            dtype=x.dtype,
            memory_format=_memory_format(kernel),
        )
        _called(
            driver.cuLaunchKernel,
            function,
            *(len(x) * kernel.blocks_per_image, 1, 1),
            *(kernel.threads, 1, 1),
            0,  # dynamic shared memory
            torch.cuda.current_stream().cuda_stream,
            ((x.data_ptr(), output.data_ptr()), (ctypes.c_void_p, ctypes.c_void_p)),
            0,
        )
        return output

    return launch


def by_torch(kernel: TowerLrnKernel, x: torch.Tensor) -> torch.Tensor:
    """Compute the same with torch's own operators."""
    folded = (len(x) * kernel.towers, kernel.channels // kernel.towers, *x.shape[2:])
    y = (F.relu(x) if kernel.fused else x).reshape(folded)
    y = F.local_response_norm(y, kernel.size, kernel.alpha, kernel.beta, kernel.k)
    return _pooled(kernel, y.reshape(x.shape))


def banded(kernel: TowerLrnKernel, device: str) -> Operation:
    """Return the form with a banded 1x1 convolution of the squares, for beta 0.75."""
    channel = torch.arange(kernel.channels // kernel.towers, device=device)
    band = (channel[:, None] - channel).abs() <= kernel.size // 2
    dtype = getattr(torch, DTYPES[kernel.scalar])
    weight = (band * kernel.alpha / kernel.size).repeat(kernel.towers, 1)[..., None, None].to(dtype)
    bias = torch.full((kernel.channels,), kernel.k, device=device, dtype=dtype)

    def run(x: torch.Tensor) -> torch.Tensor:
        a = F.relu(x) if kernel.fused else x
        root = F.conv2d(a * a, weight, bias, groups=kernel.towers).rsqrt()
        return _pooled(kernel, a * root * root.sqrt())

    return run


def _pooled(kernel: TowerLrnKernel, x: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(x, 3, 2) if kernel.fused else x


def _largest_error(kernel: TowerLrnKernel, x: torch.Tensor, actual: torch.Tensor) -> float:
    """Compare the first and the last images of a batch with torch in float64."""
    largest = 0.0
    for part in (slice(0, 4), slice(-4, None)):
        expected = by_torch(kernel, x[part].double())
        difference = (actual[part].double() - expected).abs()
        scale = expected.abs().clamp(min=torch.finfo(x.dtype).tiny)
        largest = max(largest, (difference / scale).max().item())
    if not largest <= TOLERANCES[kernel.scalar]:
        raise AlexNetDeployError(
            f"{kernel.name}, {kernel.scalar}, {kernel.channels} channels: results differ from "
            f"float64 by {largest:.2e} of their size, expected {TOLERANCES[kernel.scalar]:.2e}"
        )
    return largest


def _called(function: Any, *arguments: Any) -> Any:
    """Call the driver and return its result besides the status."""
    status, *results = function(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"{function.__name__}: the driver fails with {status.name}")
    return results[0] if results else None


def _print(result: dict[str, Any]) -> None:
    copy = "{lowest} to {highest}, median {median}".format(**result["copy_gb_per_s"])
    print(f"{result['device']}, batch {result['batch']}, copy {copy} GB/s")
    names = f"{'layer':6} {'type':6} {'layout':6} {'work':14} {'form':7}"
    print(f"{names} {'us':>8} {'of copy':>8}  error")
    for row in result["rows"]:
        work = "relu lrn pool" if row["fused"] else "lrn"
        error = f"{row['max_error']:.1e}" if "max_error" in row else ""
        print(
            f"{row['layer']:6} {row['scalar']:6} {row['layout']:6} {work:14} {row['form']:7} "
            f"{row['microseconds']:8.1f} {row['share_of_copy']:8.1%}  {error}"
        )


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        result = measure(options.batch)
    except AlexNetDeployError as error:
        sys.exit(f"{error}")
    _print(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
