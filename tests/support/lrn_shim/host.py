"""Compile `tower_lrn.cu` for the CPU and run it; g++ 12 is the first that has half precision."""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.trt.kernel import SOURCE_NAME, TowerLrnKernel

DTYPES = {"float": np.float32, "half": np.float16}
SOURCE = files("alexnet_deploy.trt").joinpath(SOURCE_NAME).read_text("utf-8")
FAULTS = {1: "touched memory that is not its own", 2: "has threads that miss a barrier"}


@cache
def missing_compiler() -> str:
    """Return why the kernel cannot be compiled here, "" if it can."""
    if shutil.which("g++") is None:
        return "g++ is not installed"
    program = "_Float16 half; int main() {}"
    command = ["g++", "-x", "c++", "-fsyntax-only", "-"]
    finished = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    return "" if finished.returncode == 0 else "this g++ has no _Float16; version 12 has"


class HostKernels:
    """Several kernels in one library: most of a compilation is the same for all."""

    def __init__(
        self, kernels: Sequence[TowerLrnKernel], folder: Path, source: str = SOURCE
    ) -> None:
        """Compile `source` once for each of `kernels`, in `folder`, which must be empty."""
        folder.joinpath(SOURCE_NAME).write_text(source, "utf-8")
        text = '#include "cuda_on_host.hpp"\n' + "".join(map(_as_namespace, kernels, range(10**6)))
        folder.joinpath("kernels.cpp").write_text(text, "utf-8")
        include = f"-I{Path(__file__).parent}"
        flags = ["-std=c++17", "-O0", "-Wno-unknown-pragmas", "-fPIC"]
        command = ["g++", "-shared", *flags, include, "kernels.cpp", "-o", "kernels.so"]
        finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stderr[:5000]
        self._library = ctypes.CDLL(str(folder / "kernels.so"))
        self._numbers = {kernel: number for number, kernel in enumerate(kernels)}

    def run(
        self, kernel: TowerLrnKernel, x: NDArray[Any], *, backwards: bool = False
    ) -> NDArray[Any]:
        """Run `kernel` on `x`, (N, C, H, W), as a GPU would, and return its output.

        `backwards`: threads run from the last to the first, and the tensors lie after, not
        before, the memory that may not be touched.
        """
        dtype = DTYPES[kernel.scalar]
        x = np.ascontiguousarray(x, dtype)
        assert x.shape[1:] == (kernel.channels, kernel.height, kernel.width)
        output = np.empty((len(x), *kernel.output_shape()), dtype)
        result = self._library[f"launch_{self._numbers[kernel]}"](
            *(
                ctypes.c_uint(number)
                for number in (len(x) * kernel.blocks_per_image, kernel.threads)
            ),
            *(ctypes.c_void_p(x.ctypes.data), ctypes.c_size_t(x.nbytes)),
            *(ctypes.c_void_p(output.ctypes.data), ctypes.c_size_t(output.nbytes)),
            ctypes.c_int(not backwards),
        )
        assert result == 0, f"{kernel.name} {FAULTS[result]}: {kernel}"
        return output


def _as_namespace(kernel: TowerLrnKernel, number: int) -> str:
    """Return C++ that includes the source with the numbers of `kernel`, and a launcher of it."""
    definitions = [re.fullmatch(r"-D(\w+)=(.+)", option) for option in kernel.options()]
    assert all(definitions), kernel.options()
    macros = [(found[1], found[2]) for found in definitions if found]
    macros.append((kernel.name, f"kernel_{number}"))
    lines = [
        *(f"#define {name} {value}" for name, value in macros),
        f"namespace numbers_{number} {{",
        "using ::larger;",
        f'#include "{SOURCE_NAME}"',
        "}",
        f'extern "C" int launch_{number}(unsigned blocks, unsigned threads, const char* input,',
        "    size_t input_bytes, char* output, size_t output_bytes, int at_end) {",
        f"    return launch<SCALAR>(numbers_{number}::kernel_{number}, blocks, threads, input,",
        "        input_bytes, output, output_bytes, at_end);",
        "}",
        *(f"#undef {name}" for name, _ in macros),
    ]
    return "\n".join(lines) + "\n"
