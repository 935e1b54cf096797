"""Print what the LRN kernels are as machine code, and estimate their time on GPUs, without one.

    python tools/kernel_bounds.py [--batch 256] [--json FILE]

Each kernel of the paper's network is compiled for each architecture: registers and spills are told
by ptxas, instructions by nvdisasm. From these and from datasheets come estimates, not measurements:

    memory     input and output, once each, at the memory's full bandwidth
    special    two roots for each element of the input, by the special-function units
    bound      the longer of the two: what no kernel that takes two roots can go below
    issue      every instruction, also those of elements that are computed twice and of idle
               threads, at 4 warps per clock
    estimate   the longest of memory, issue, and special for as many elements as issue has

The estimate lets memory and arithmetic overlap wholly. It knows nothing of latency, of a last wave
that does not fill the GPU, or of clocks below a datasheet's. Needs NVRTC, ptxas of CUDA 13 in the
search path, and nvdisasm: pip install nvidia-cuda-nvdisasm.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, files
from math import ceil, prod
from pathlib import Path
from typing import Any

from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.trt.kernel import Hwc8Kernel, Scalar, TowerLrnKernel, compile_ptx

WARP = 32
REGISTERS = 65_536  # of a multiprocessor
LANES_ISSUED, SPECIAL_FUNCTIONS = 4 * WARP, 16  # per clock and multiprocessor
ROOTS = 2  # of an element
RESERVED_BYTES = 1024  # of shared memory, by the driver, per block
SCALAR_BYTES = {"float": 4, "half": 2}
LIMITS = {80: (64, 32, 164), 86: (48, 16, 100), 89: (48, 24, 100), 90: (64, 32, 228)}
LIMITS |= {100: (64, 32, 228), 120: (48, 24, 100)}
"""Of a multiprocessor, by architecture: warps, blocks and KiB of shared memory (CUDA C++
Programming Guide 13.0, "Compute Capabilities")."""


@dataclass(frozen=True)
class Gpu:
    """As in NVIDIA's datasheets; the clock is the highest."""

    name: str
    architecture: int
    multiprocessors: int
    clock_ghz: float
    bandwidth_gb_s: float


GPUS = (
    Gpu("A100 80 GB", 80, 108, 1.41, 2039),
    Gpu("H100 SXM", 90, 132, 1.98, 3350),
    Gpu("H200", 90, 132, 1.98, 4800),
    Gpu("L4", 89, 58, 2.04, 300),
    Gpu("RTX 4090", 89, 128, 2.52, 1008),
    Gpu("B200", 100, 148, 1.965, 8000),
)


@dataclass(frozen=True)
class Code:
    """A kernel's machine code.

    Attributes:
        registers: of a thread.
        spill_bytes: of a thread, stored.
        shared_bytes: of a block.
        blocks: that fit on a multiprocessor.
        occupancy: share of a multiprocessor's warps that these blocks have.
        instructions: in all.
        loop_instructions: of the loop with the most roots; of all without a loop.
        loop_roots: how many of these are special functions.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    blocks: int
    occupancy: float
    instructions: int
    loop_instructions: int
    loop_roots: int

    @property
    def per_element(self) -> float:
        """Return the instructions of an element."""
        return self.loop_instructions / (self.loop_roots / ROOTS)


def kernels() -> Iterator[tuple[str, TowerLrnKernel]]:
    """Yield the kernels of the paper's network with their names: layer, type, layout, work."""
    spec = preset_spec("paper")
    assert spec.lrn is not None
    kinds: tuple[tuple[type[TowerLrnKernel], Scalar, str], ...] = (
        (TowerLrnKernel, "float", "linear"),
        (TowerLrnKernel, "half", "linear"),
        (Hwc8Kernel, "half", "hwc8"),
    )
    for layer in ("conv1", "conv2"):
        channels, height, width = spec.layer_shapes()[layer]
        for kind, scalar, layout in kinds:
            for fused in (True, False):
                kernel = kind(
                    scalar=scalar,
                    channels=channels,
                    height=height,
                    width=width,
                    size=spec.lrn.size,
                    alpha=spec.lrn.alpha,
                    beta=spec.lrn.beta,
                    k=spec.lrn.k,
                    towers=spec.lrn.towers,
                    fused=fused,
                )
                yield f"{layer} {scalar} {layout} {'relu-lrn-pool' if fused else 'lrn'}", kernel


def machine_code(kernel: TowerLrnKernel, architecture: int) -> Code:
    """Compile and disassemble a kernel for an architecture, as 90."""
    with tempfile.TemporaryDirectory() as folder:
        ptx, cubin = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        ptx.write_bytes(compile_ptx(kernel, f"compute_{architecture}"))
        report = output_of(ptxas(), f"-arch=sm_{architecture}", "-v", ptx, "-o", cubin)
        listing = output_of(nvdisasm(), "-c", cubin)
    registers, spill_bytes, shared_bytes = resources(report)
    blocks, occupancy = resident(architecture, kernel.threads, registers, shared_bytes)
    every, loop = instructions(listing)
    return Code(
        registers=registers,
        spill_bytes=spill_bytes,
        shared_bytes=shared_bytes,
        blocks=blocks,
        occupancy=round(occupancy, 3),
        instructions=every.total(),
        loop_instructions=loop.total(),
        loop_roots=loop["MUFU"],
    )


def resources(report: str) -> tuple[int, int, int]:
    """Return registers, bytes of spill stores and of shared memory from `ptxas -v`."""
    registers, spilled = (
        int(found[1])
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores")
        if (found := re.search(pattern, report))
    )
    shared = re.search(r"(\d+) bytes smem", report)
    return registers, spilled, int(shared[1]) if shared else 0


def resident(
    architecture: int, threads: int, registers: int, shared_bytes: int
) -> tuple[int, float]:
    """Return how many blocks fit on a multiprocessor, and their share of its warps."""
    most_warps, most_blocks, shared_kib = LIMITS[architecture]
    warps = ceil(threads / WARP)
    blocks = min(
        most_blocks,
        most_warps // warps,
        # Each of the four schedulers has a quarter of the registers, for whole warps.
        4 * (REGISTERS // 4 // (ceil(registers / 8) * 8 * WARP)) // warps,
        shared_kib * 1024 // (shared_bytes + RESERVED_BYTES),
    )
    return blocks, blocks * warps / most_warps


def instructions(listing: str) -> tuple[Counter[str], Counter[str]]:
    """Count instructions in nvdisasm's listing by name, as "MUFU": all, and of one loop.

    The loop is that with the most special functions; without loops it is all.
    """
    names: list[str] = []
    labels: dict[str, int] = {}
    loops: list[Counter[str]] = []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(names)
        found = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+ )?\s*([A-Z]\w*)(.*)", line)
        if found and found[1] != "NOP":
            names.append(found[1])
            target = re.search(r"`\((\.L_x_\d+)\)", found[2])
            # The endless loop that follows a kernel's end is a branch to itself.
            if found[1] == "BRA" and target and labels.get(target[1], len(names)) < len(names) - 1:
                loops.append(Counter(names[labels[target[1]] :]))
    every = Counter(names)
    return every, max(loops, key=lambda loop: loop["MUFU"], default=every)


def estimate(kernel: TowerLrnKernel, code: Code, gpu: Gpu, batch: int) -> dict[str, float]:
    """Return the times of the module's docstring, in microseconds; and what reordering costs.

    `reformats`: to bring the input of a linear kernel of halves from HWC8, and its output back.
    """
    elements = batch * kernel.channels * kernel.height * kernel.width
    num_bytes = (elements + batch * prod(kernel.output_shape())) * SCALAR_BYTES[kernel.scalar]
    clocks_per_us = gpu.multiprocessors * gpu.clock_ghz * 1e3
    computed = batch * elements_computed(kernel)
    memory = num_bytes / gpu.bandwidth_gb_s / 1e3
    special = ROOTS * elements / SPECIAL_FUNCTIONS / clocks_per_us
    issue = computed * code.per_element / LANES_ISSUED / clocks_per_us
    bound = max(memory, special)
    estimated = max(memory, issue, special * computed / elements)
    times = {"memory": memory, "special": special, "bound": bound}
    times |= {"issue": issue, "estimate": estimated}
    if kernel.scalar == "half" and not isinstance(kernel, Hwc8Kernel):
        times["reformats"] = 2 * memory
    return {f"{name}_us": round(time, 1) for name, time in times.items()} | {
        "bound_share": round(bound / estimated, 3)
    }


def elements_computed(kernel: TowerLrnKernel) -> int:
    """Return for how many elements of an image instructions are issued, idle threads included."""
    numbers = dict(option.removeprefix("-D").split("=") for option in kernel.options())
    if not isinstance(kernel, Hwc8Kernel):
        of_thread = int(numbers["STRETCH"]) * int(numbers["SPOTS"]) * (1 + kernel.fused)
    else:  # units of eight: of two columns of so many rows, or one
        of_thread = 8 * (2 * (2 * int(numbers["ROWS"]) + 1) if kernel.fused else 1)
    return kernel.blocks_per_image * ceil(kernel.threads / WARP) * WARP * of_thread


def output_of(*command: object) -> str:
    """Run a command; return what it writes."""
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if finished.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {finished.stderr or finished.stdout}")
    return finished.stdout + finished.stderr


def ptxas() -> str:
    """Return where ptxas is."""
    found = shutil.which("ptxas")
    if found is None:
        raise SystemExit("ptxas is not in the search path; install CUDA 13, or nvidia-cuda-nvcc")
    return found


def nvdisasm() -> Path:
    """Return where nvdisasm is: in its wheel."""
    try:
        paths = files("nvidia-cuda-nvdisasm") or ()
    except PackageNotFoundError as error:
        raise SystemExit("nvdisasm is missing: pip install nvidia-cuda-nvdisasm") from error
    return next(Path(path.locate()) for path in paths if path.name == "nvdisasm")


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table: a column as wide as its widest text."""
    texts = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        print("  ".join(map(str.ljust, text, widths)).rstrip())
    print()


def main() -> None:
    """Print both tables and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.batch < 1:
        parser.error(f"--batch {arguments.batch}: expected 1 or more images")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist; create it first")
    code_rows: list[dict[str, Any]] = []
    time_rows: list[dict[str, Any]] = []
    for name, kernel in kernels():
        codes = {architecture: machine_code(kernel, architecture) for architecture in LIMITS}
        for architecture, code in codes.items():
            row = {"kernel": name, "architecture": architecture, **asdict(code)}
            code_rows.append(row | {"per_element": round(code.per_element, 1)})
        for gpu in GPUS:
            times = estimate(kernel, codes[gpu.architecture], gpu, arguments.batch)
            time_rows.append({"kernel": name, "gpu": gpu.name, **times})
    print_rows(code_rows)
    print_rows([{"reformats_us": "", **row} for row in time_rows])
    if arguments.json is not None:
        result = {
            "ptxas": output_of(ptxas(), "--version").splitlines()[-1],
            "nvdisasm": output_of(nvdisasm(), "--version").splitlines()[-1],
            "batch": arguments.batch,
            "gpus": [asdict(gpu) for gpu in GPUS],
            "code": code_rows,
            "estimates": time_rows,
        }
        arguments.json.write_text(f"{rows_on_lines(result)}\n", "utf-8")


def rows_on_lines(result: dict[str, Any]) -> str:
    """Return JSON with a line for each row of a table."""
    fields = []
    for name, value in result.items():
        rows = map(json.dumps, value) if isinstance(value, list) else ()
        text = json.dumps(value) if not rows else "[\n  " + ",\n  ".join(rows) + "\n ]"
        fields.append(f"{json.dumps(name)}: {text}")
    return "{\n " + ",\n ".join(fields) + "\n}"


if __name__ == "__main__":
    main()
