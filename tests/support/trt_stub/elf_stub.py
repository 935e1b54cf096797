"""Write shared libraries without a compiler: one with TensorRT's nine functions, one as a driver.

The ELF file is as small as the loader allows: one segment, the dynamic section, a symbol table with
a hash of one bucket, and the functions, each of which may write a number and returns another.
"""

import platform
import struct
from collections.abc import Mapping

LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_MACHINES = {"x86_64": 62, "aarch64": 183}  # ELF's numbers of them

_ELF_HEADER, _PROGRAM_HEADER, _SYMBOL = 64, 56, 24  # bytes
# Program headers and tags of the dynamic section, by their names in elf.h.
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14


def elf_stub(soname: str, functions: Mapping[str, bytes]) -> bytes:
    """Return a library that the loader knows by `soname`, with the code of each function."""
    number = _MACHINES[platform.machine()]
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*functions, soname))
    offsets = {name: names.index(f"\0{name}\0".encode()) + 1 for name in (*functions, soname)}
    num_symbols = len(functions) + 1  # the first is empty
    symbols = _ELF_HEADER + 3 * _PROGRAM_HEADER
    hashes = symbols + _SYMBOL * num_symbols
    strings = hashes + 4 * (3 + num_symbols)
    code = (strings + len(names) + 15) & ~15
    size = max(map(len, functions.values())) + 15 & ~15  # of each function's place
    places = {name: code + size * index for index, name in enumerate(functions)}
    dynamic = code + size * len(functions)
    tags = (
        *((_DT_SONAME, offsets[soname]), (_DT_HASH, hashes), (_DT_STRTAB, strings)),
        *((_DT_SYMTAB, symbols), (_DT_STRSZ, len(names)), (_DT_SYMENT, _SYMBOL), (0, 0)),
    )
    end = dynamic + 16 * len(tags)
    # One bucket, whose chain runs through all symbols: 1, 2, ..., 0 at its end.
    chain = [0, *range(2, num_symbols), 0]
    pieces = {
        0: struct.pack(
            "<16sHHIQQQIHHHHHH",
            b"\x7fELF\2\1\1",
            *(3, number, 1, 0, _ELF_HEADER, 0, 0),
            *(_ELF_HEADER, _PROGRAM_HEADER, 3, 0, 0, 0),
        )
        + _program_header(_PT_LOAD, flags=5, start=0, size=end, alignment=0x10000)
        + _program_header(_PT_DYNAMIC, flags=4, start=dynamic, size=16 * len(tags), alignment=8)
        + _program_header(_PT_GNU_STACK, flags=6, start=0, size=0, alignment=16),
        symbols: bytes(_SYMBOL)
        + b"".join(
            struct.pack("<IBBHQQ", offsets[name], 0x12, 0, 1, places[name], len(body))
            for name, body in functions.items()
        ),
        hashes: struct.pack(f"<{3 + num_symbols}I", 1, num_symbols, 1, *chain),
        strings: names,
        **{places[name]: body for name, body in functions.items()},
        dynamic: b"".join(struct.pack("<QQ", *tag) for tag in tags),
    }
    library = bytearray(end)
    for start, piece in pieces.items():
        library[start : start + len(piece)] = piece
    return bytes(library)


def tensorrt_stub(soname: str) -> bytes:
    """Return a library of TensorRT whose functions make nothing: each returns a null pointer."""
    return elf_stub(soname, dict.fromkeys(FUNCTIONS, function_code()))


def driver_stub(version: int, cu_init: int = 0) -> bytes:
    """Return NVIDIA's driver as `gpu_driver` calls it, with one GPU, and no more than that.

    Args:
        version: newest CUDA that it supports, as 13020 for 13.2.
        cu_init: what `cuInit` returns.
    """
    functions = {
        "cuInit": function_code(returns=cu_init),
        "cuDriverGetVersion": function_code(version),
        "cuDeviceGetCount": function_code(1),
        "cuDeviceGet": function_code(0),
        "cuDeviceGetName": function_code(int.from_bytes(b"GPU\0", "little")),
        "cuDeviceGetAttribute": function_code(9),
    }
    return elf_stub("libcuda.so.1", functions)


def function_code(written: int | None = None, *, returns: int = 0) -> bytes:
    """Return machine code that writes 32 bits to where its first argument points, and returns."""
    if platform.machine() == "x86_64":
        write = b"" if written is None else b"\xc7\x07" + struct.pack("<I", written)
        return write + b"\xb8" + struct.pack("<I", returns) + b"\xc3"  # mov [rdi]; mov eax; ret
    words = [0xD2800000 | returns << 5, 0xD65F03C0]  # mov x0; ret
    if written is not None:  # mov w1; movk w1, lsl 16; str w1, [x0]
        low, high = written & 0xFFFF, written >> 16
        words = [0x52800001 | low << 5, 0x72A00001 | high << 5, 0xB9000001, *words]
    return struct.pack(f"<{len(words)}I", *words)


def _program_header(kind: int, *, flags: int, start: int, size: int, alignment: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, start, start, start, size, size, alignment)
