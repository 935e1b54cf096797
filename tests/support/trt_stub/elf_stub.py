"""Write a shared library that has TensorRT's nine functions, without a compiler.

The ELF file is as small as the loader allows: one segment, the dynamic section, a symbol table with
a hash of one bucket, and one function for all nine names, which returns 0.
"""

import platform
import struct

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
# By machine: ELF's number of it, and "return 0".
CODE = {
    "x86_64": (62, bytes.fromhex("31c0c3")),  # xor eax, eax; ret
    "aarch64": (183, bytes.fromhex("000080d2c0035fd6")),  # mov x0, #0; ret
}

_ELF_HEADER, _PROGRAM_HEADER, _SYMBOL = 64, 56, 24  # bytes
# Program headers and tags of the dynamic section, by their names in elf.h.
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14


def elf_stub(soname: str, machine: str = platform.machine()) -> bytes:
    """Return a library that the loader knows by `soname` for `machine`, a key of `CODE`."""
    number, code = CODE[machine]
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*FUNCTIONS, soname))
    offsets = {name: names.index(f"\0{name}\0".encode()) + 1 for name in (*FUNCTIONS, soname)}
    num_symbols = len(FUNCTIONS) + 1  # the first is empty
    symbols = _ELF_HEADER + 3 * _PROGRAM_HEADER
    hashes = symbols + _SYMBOL * num_symbols
    strings = hashes + 4 * (3 + num_symbols)
    function = (strings + len(names) + 15) & ~15
    dynamic = (function + len(code) + 15) & ~15
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
            struct.pack("<IBBHQQ", offsets[name], 0x12, 0, 1, function, len(code))
            for name in FUNCTIONS
        ),
        hashes: struct.pack(f"<{3 + num_symbols}I", 1, num_symbols, 1, *chain),
        strings: names,
        function: code,
        dynamic: b"".join(struct.pack("<QQ", *tag) for tag in tags),
    }
    library = bytearray(end)
    for start, piece in pieces.items():
        library[start : start + len(piece)] = piece
    return bytes(library)


def _program_header(kind: int, *, flags: int, start: int, size: int, alignment: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, start, start, start, size, size, alignment)
