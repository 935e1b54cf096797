"""What this machine's processor is, and what it makes of 8-bit products."""

import functools
import platform
from collections.abc import Mapping
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}


@functools.cache
def processor_fields() -> Mapping[str, str]:
    """Return what Linux lists of the first processor, such as "model name"; elsewhere nothing."""
    try:
        first = _CPUINFO.read_text("utf-8", "replace").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def multiplies_int8_faster() -> bool:
    """Return whether OpenVINO takes less time in int8 than in float32: measured on x86 with AVX2.

    1.5 times as fast there, 1.8 to 2.2 times with VNNI. Elsewhere it has not been measured.
    """
    return "avx2" in _flags()


def saturates_int8() -> bool:
    """Return whether OpenVINO adds pairs of 8-bit products in 16 bits here, which can saturate.

    It does on x86 without VNNI; see `graph.unsigned_int8`. Where the system does not list its
    instructions, it is taken to do so: that costs a little time, and the contrary results.
    """
    return platform.machine() in ("x86_64", "AMD64") and not _flags() & _VNNI


def _flags() -> set[str]:
    """Return the instructions that Linux lists for x86."""
    return set(processor_fields().get("flags", "").split())
