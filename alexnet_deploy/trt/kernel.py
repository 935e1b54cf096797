"""The CUDA kernels of LRN for one layer: their constants, their launch, and their PTX by NVRTC.

The only importer of `cuda.bindings.nvrtc`. NVRTC needs no GPU; the driver of any GPU no older than
the PTX's architecture compiles it to machine code.
"""

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar, Literal

from alexnet_deploy.errors import (
    Argument,
    DeviceError,
    IncompatibleFileError,
    MissingPackageError,
)
from alexnet_deploy.model.spec import POOL_SIZE, POOL_STRIDE
from alexnet_deploy.runtimes.gpu_driver import gpus

try:
    from cuda.bindings import nvrtc
except ImportError as error:
    raise MissingPackageError("cuda-bindings", "tensorrt", "compiling the LRN kernel") from error

HEADER = "lrn.cuh"
SOURCES = (HEADER, "tower_lrn.cu", "tower_lrn_hwc8.cu")
Scalar = Literal["float", "half"]

_WARP = 32  # threads executed in lockstep
_SPOTS = 2  # per thread: with one, the fixed cost of a step weighs double
_PLACES_PER_BLOCK = 512  # at most, without the pool
_MAX_THREADS = 288  # per block, with the pool, so that four fit for half, three for float
# Blocks. More would leave conv1's threads fewer registers than they need; conv2's 256 images have
# 3.9 for each of an H200's 132 multiprocessors.
_MAX_RESIDENT = 4
_REGISTERS = 65_536  # of a multiprocessor
_REGISTERS_PER_THREAD = {"float": 72, "half": 56}  # that the compiler needs to avoid spilling
_REGISTERS_BEFORE_90 = 64  # the same for half on older architectures: conv1 has three blocks there
_MAX_STRETCH = 128  # channels; a larger tower is split, else there are too few blocks
_MAX_SIZE = 31  # channels of the window, which each thread keeps in registers
_UNIT = 8  # channels that lie together in HWC8
_MAX_HWC8_THREADS = 384  # per block, with the pool: all 96 channels of conv1, half of conv2's 256
_MAX_HWC8_ROWS = 13  # pooled, of a block: conv2's in one block, conv1's in three
_HWC8_THREADS = 256  # per block, without the pool
_OLDEST = 80  # architecture: introduced max.NaN and its half2 form
# Subnormal floats are flushed to 0, which changes a result by less than 2e-38, and a square root is
# one instruction, accurate to 2^-23. --use_fast_math would change nothing else for beta 0.75; for
# other powers it would use too coarse a logarithm.
_OPTIONS = ("--std=c++17", "-default-device", "--ftz=true", "--prec-sqrt=false")


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerLrnKernel:
    """One specialized kernel: every constant is a literal in the compiled code.

    It is launched with N * `blocks_per_image` blocks of `threads` threads, all in x, and takes two
    pointers to tensors in C order: the input, (N, channels, height, width), and the output,
    (N, *output_shape()). It needs no dynamic shared memory.

    Attributes:
        scalar: of input and output; sums are float.
        channels: of the input.
        height: of the input, px.
        width: of the input, px.
        size: channels of the window.
        alpha: divided by `size` in the formula, as in `LrnSpec`.
        beta: the formula's power.
        k: the formula's constant.
        towers: slices of the channels whose edges the window does not cross.
        fused: ReLU before, and max-pool (3x3, stride 2, no padding) after.
    """

    source: ClassVar = "tower_lrn.cu"
    """Name of the file that it is compiled from."""

    scalar: Scalar
    channels: int
    height: int
    width: int
    size: int
    alpha: float
    beta: float
    k: float
    towers: int
    fused: bool

    def __post_init__(self) -> None:
        """Reject constants that no kernel supports.

        Raises:
            IncompatibleFileError: naming the constant, its value and what was expected.
        """
        expect = self._expect
        expect("scalar", self.scalar, self.scalar in ("float", "half"), "float or half")
        for name in ("channels", "height", "width", "towers"):
            number = getattr(self, name)
            expect(name, number, number >= 1, "1 or more")
        odd = self.size % 2 == 1 and 1 <= self.size <= _MAX_SIZE
        expect("size", self.size, odd, f"an odd number, 1 to {_MAX_SIZE}")
        for name in ("alpha", "beta", "k"):
            number = getattr(self, name)
            expect(name, number, math.isfinite(number), "a finite number")
        divides = self.channels % self.towers == 0
        expect("towers", self.towers, divides, f"a divisor of {self.channels} channels")
        elements = self.channels * self.height * self.width
        expect("the input", elements, elements < 2**31, "fewer than 2^31 elements an image")
        if self.fused:
            smallest = min(self.height, self.width)
            expect("the map's side", smallest, smallest >= POOL_SIZE, f"{POOL_SIZE} px or more")
            fits = POOL_SIZE * self._pairs_per_row <= _SPOTS * _MAX_THREADS
            expect("width", self.width, fits, "less: three rows must fit into a block")

    @property
    def name(self) -> str:
        """Return the kernel's entry point."""
        return "relu_tower_lrn_pool" if self.fused else "tower_lrn"

    @property
    def threads(self) -> int:
        """Return the number of threads per block."""
        return _ceil(self._spots_per_block, _SPOTS * _WARP) * _WARP

    @property
    def blocks_per_image(self) -> int:
        """Return the number of blocks per image."""
        return self.towers * _ceil(self._tower, self._stretch) * self._parts

    def output_shape(self) -> tuple[int, int, int]:
        """Return the output shape of one image: channels, height, width."""
        if not self.fused:
            return self.channels, self.height, self.width
        height, width = (
            (side - POOL_SIZE) // POOL_STRIDE + 1 for side in (self.height, self.width)
        )
        return self.channels, height, width

    def options(self, architecture: int = _OLDEST) -> tuple[str, ...]:
        """Return the compiler options that define the constants, for an architecture as 80."""
        resident = _REGISTERS // (self._registers(architecture) * self.threads)
        numbers = {
            "SCALAR": self.scalar,
            "CHANNELS": self.channels,
            "HEIGHT": self.height,
            "WIDTH": self.width,
            "TOWERS": self.towers,
            "SIZE": self.size,
            "ALPHA": float(self.alpha),
            "BETA": float(self.beta),
            "K": float(self.k),
            "POOLED": int(self.fused),
            **self._shares(),
            "THREADS": self.threads,
            "RESIDENT": min(resident, _MAX_RESIDENT),
        }
        return tuple(f"-D{name}={number}" for name, number in numbers.items())

    def _registers(self, architecture: int) -> int:
        """Return how many registers a thread needs."""
        if self.scalar == "half" and architecture < 90:
            return _REGISTERS_BEFORE_90
        return _REGISTERS_PER_THREAD[self.scalar]

    def _shares(self) -> dict[str, int]:
        """Return the constants that divide the work among blocks and threads."""
        return {"STRETCH": self._stretch, "ROWS": self._rows, "SPOTS": _SPOTS}

    @property
    def _tower(self) -> int:
        return self.channels // self.towers

    @property
    def _stretch(self) -> int:
        """Channels per block: a tower's, or an equal, even share of them."""
        shares = _ceil(self._tower, _MAX_STRETCH)
        return self._tower if shares == 1 else _ceil(_ceil(self._tower, shares), 2) * 2

    @property
    def _pairs_per_row(self) -> int:
        """Pairs of positions of a row that are kept for pooling, as in `tower_lrn.cu`."""
        return 2 * (self.output_shape()[2] // 2 + 1)

    @property
    def _rows(self) -> int:
        """Rows of the pooled map computed by a block; 0 without pooling."""
        if not self.fused:
            return 0
        most = (_SPOTS * _MAX_THREADS // self._pairs_per_row - 1) // POOL_STRIDE
        height = self.output_shape()[1]
        return _ceil(height, _ceil(height, most))

    @property
    def _spots_per_block(self) -> int:
        if self.fused:
            return (POOL_STRIDE * self._rows + 1) * self._pairs_per_row
        places = self.height * self.width
        return _ceil(places, _ceil(places, _PLACES_PER_BLOCK))

    @property
    def _parts(self) -> int:
        """Number of parts that the map is split into, one per block."""
        if self.fused:
            return _ceil(self.output_shape()[1], self._rows)
        return _ceil(self.height * self.width, _SPOTS * self.threads)

    def _expect(self, what: str, value: object, is_right: bool, expected: str) -> None:
        if not is_right:
            raise IncompatibleFileError(
                f"{self.name} kernel: {what} is {value!r}, expected {expected}; export with ",
                Argument("lrn", "native"),
                " to do without this kernel",
            )


class Hwc8Kernel(TowerLrnKernel):
    """The same for half tensors in TensorRT's layout HWC8: (N, height, width, channels).

    Its pointers are to tensors in that order, at addresses that are multiples of 16.
    """

    __slots__ = ()
    source: ClassVar = "tower_lrn_hwc8.cu"

    def __post_init__(self) -> None:
        """Reject constants that no kernel supports; see also `fits_hwc8`.

        Raises:
            IncompatibleFileError: naming the constant, its value and what was expected.
        """
        super().__post_init__()
        self._expect("scalar", self.scalar, self.scalar == "half", "half")
        fits = fits_hwc8(self.channels, self.size, self.towers)
        expected = f"towers of a multiple of {_UNIT} channels, and windows of up to {2 * _UNIT + 1}"
        self._expect("layout", "HWC8", fits, f"linear; HWC8 needs {expected}")

    @property
    def threads(self) -> int:
        """Return the number of threads per block."""
        return self._columns * self._units if self.fused else _HWC8_THREADS

    @property
    def blocks_per_image(self) -> int:
        """Return the number of blocks per image."""
        units = self.channels // _UNIT
        if self.fused:
            return self._parts * units // self._units
        return _ceil(self.height * self.width * units, _HWC8_THREADS)

    def _registers(self, architecture: int) -> int:
        return _REGISTERS_PER_THREAD["half"]

    def _shares(self) -> dict[str, int]:
        return {"UNITS": self._units, "ROWS": self._rows} if self.fused else {}

    @property
    def _columns(self) -> int:
        """Columns of threads: those of the pooled map, and one that lends its b to the last."""
        return self.output_shape()[2] + 1

    @property
    def _units(self) -> int:
        """Units of a place per block: as many as fit, and divide those of a place."""
        units = self.channels // _UNIT
        most = _MAX_HWC8_THREADS // self._columns
        return max(each for each in range(1, most + 1) if units % each == 0)

    @property
    def _rows(self) -> int:
        height = self.output_shape()[1]
        return _ceil(height, _ceil(height, _MAX_HWC8_ROWS))


def fits_hwc8(channels: int, size: int, towers: int) -> bool:
    """Return whether `Hwc8Kernel` normalizes such channels.

    A tower must consist of whole units of 8 channels, and a window reach no further than a unit.
    """
    return channels % (towers * _UNIT) == 0 and size // 2 <= _UNIT


def compile_ptx(kernel: TowerLrnKernel, architecture: str = "compute_80") -> bytes:
    """Compile a kernel to PTX.

    Args:
        kernel: its constants become literals.
        architecture: oldest architecture that must run it, as "compute_80". If the compiler does
            not know it, the newest that it knows is used.

    Returns:
        PTX as text without a NUL; its only entry point is `kernel.name`.

    Raises:
        DeviceError: the GPU or its driver is too old, or the compiler fails; with its log.
        MissingPackageError: NVRTC is not installed.
        ValueError: `architecture` is not of the form "compute_80".
    """
    compiler = compiler_version()
    found = gpus()
    if found:
        check_compiler(compiler, found[0].cuda_version)
    target = _target(architecture)
    options = (f"--gpu-architecture=compute_{target}", *_OPTIONS, *kernel.options(target))
    source, header = (
        files("alexnet_deploy.trt").joinpath(name).read_bytes() for name in (kernel.source, HEADER)
    )
    program = _called(
        nvrtc.nvrtcCreateProgram, source, kernel.source.encode(), 1, [header], [HEADER.encode()]
    )
    try:
        encoded = [option.encode() for option in options]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(encoded), encoded)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise DeviceError(
                f"{kernel.source}: NVRTC {compiler} does not compile it with "
                f"{' '.join(options)}: {_text(program, 'ProgramLog')}"
            )
        return _text(program, "PTX").encode()
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def check_compiler(compiler: str, driver: str) -> None:
    """Reject a compiler whose PTX the driver would not accept.

    Args:
        compiler: CUDA version of NVRTC, as "13.0".
        driver: newest CUDA version that the driver supports, as "13.0".

    Raises:
        DeviceError: the compiler is newer; the message says what to install.
    """
    if _version(compiler) > _version(driver):
        raise DeviceError(
            f"NVRTC is of CUDA {compiler}, newer than the CUDA {driver} of this machine's driver, "
            "which would reject its kernels; update the driver, or, if it is of CUDA 13, install "
            "the NVRTC of CUDA 13.0: pip install 'alexnet-deploy[tensorrt]'"
        )


def _target(architecture: str) -> int:
    """Return the newest architecture that NVRTC supports and GPUs of `architecture` can run."""
    found = re.fullmatch(r"compute_(\d+)", architecture)
    if found is None:
        raise ValueError(f"architecture is {architecture!r}, expected one like 'compute_80'")
    known = _called(nvrtc.nvrtcGetSupportedArchs)
    usable = [number for number in known if _OLDEST <= number <= int(found[1])]
    if not usable:
        raise DeviceError(
            f"the LRN kernel needs a GPU of compute capability {_OLDEST / 10} or later, and this "
            f"one is {architecture}; export with ",
            Argument("lrn", "native"),
            " to do without the kernel",
        )
    return int(max(usable))


def compiler_version() -> str:
    """Return the CUDA version of NVRTC, as "13.0"."""
    try:
        return "{}.{}".format(*_called(nvrtc.nvrtcVersion))
    except RuntimeError as error:  # raised by cuda-bindings if it cannot find the library
        raise MissingPackageError(
            "nvidia-cuda-nvrtc", "tensorrt", "compiling the LRN kernel"
        ) from error


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _text(program: Any, what: str) -> str:
    """Return an NVRTC program's "PTX" or "ProgramLog"."""
    buffer = b" " * _called(getattr(nvrtc, f"nvrtcGet{what}Size"), program)
    _called(getattr(nvrtc, f"nvrtcGet{what}"), program, buffer)
    return str(buffer.rstrip(b"\0").decode())


def _called(function: Any, *arguments: Any) -> Any:
    """Call NVRTC and return its result besides the status."""
    status, *results = function(*arguments)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceError(f"{function.__name__}: NVRTC fails with {status.name}")
    return results[0] if len(results) == 1 else results


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
