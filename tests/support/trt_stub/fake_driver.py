"""The functions of CUDA's driver that we call, as `ctypes` sees them in the loaded library."""

from dataclasses import dataclass, field
from typing import Any

SUCCESS, INVALID_VALUE, NOT_INITIALIZED, NO_DEVICE = 0, 1, 3, 100  # CUresult, cuda.h
MAJOR, MINOR = 75, 76
_FIRST_HANDLE = 40  # a CUdevice is a handle, not the number that it was asked for by


@dataclass
class FakeDriver:
    """Stands for `ctypes.CDLL("libcuda.so.1")`.

    Attributes:
        gpus: name, major and minor compute capability of each device.
        version: newest CUDA that it runs, as it writes that.
        failures: statuses to return instead of doing anything, by function.
    """

    gpus: list[tuple[str, int, int]] = field(default_factory=lambda: [("NVIDIA Fake 100", 9, 0)])
    version: int = 13020
    failures: dict[str, int] = field(default_factory=dict)
    is_ready: bool = False

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        self.is_ready = "cuInit" not in self.failures
        return self.failures.get("cuInit", SUCCESS)

    def cuDriverGetVersion(self, version: Any) -> int:
        return self._write("cuDriverGetVersion", version, self.version)

    def cuDeviceGetCount(self, count: Any) -> int:
        return self._write("cuDeviceGetCount", count, len(self.gpus))

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        assert 0 <= ordinal < len(self.gpus)
        return self._write("cuDeviceGet", device, _FIRST_HANDLE + ordinal)

    def cuDeviceGetName(self, name: Any, length: int, device: int) -> int:
        text = self.gpus[device - _FIRST_HANDLE][0].encode()
        assert len(text) < length <= len(name)
        name.value = text
        return self._status("cuDeviceGetName")

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: int) -> int:
        place = {MAJOR: 1, MINOR: 2}[attribute]
        value = self.gpus[device - _FIRST_HANDLE][place]
        return self._write("cuDeviceGetAttribute", number, value)

    def _write(self, function: str, reference: Any, value: object) -> int:
        if self._status(function) == SUCCESS:
            reference._obj.value = value  # of ctypes.byref
        return self._status(function)

    def _status(self, function: str) -> int:
        return self.failures.get(function, SUCCESS if self.is_ready else NOT_INITIALIZED)
