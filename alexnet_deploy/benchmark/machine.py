"""What a measurement was made on: processor, instructions, GPUs, versions."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from alexnet_deploy import installed
from alexnet_deploy.photographs.pipeline import default_threads
from alexnet_deploy.runtimes.factory import runtime_version
from alexnet_deploy.runtimes.gpu_driver import gpus
from alexnet_deploy.runtimes.processor import processor_fields

_FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "bf16": ("avx512_bf16", "bf16"),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "amx": ("amx_tile",),
}
"""Instructions that a network's speed depends on, by their flags in Linux's /proc/cpuinfo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine and its software.

    Attributes:
        system: operating system and architecture.
        cpu: the processor's name.
        instructions: those of avx2, avx512, bf16, vnni and amx that the system lists.
        cores: available to this process.
        gpus: names of NVIDIA's GPUs.
        versions: of Python, of the runtimes that are installed, and of what decodes.
    """

    system: str
    cpu: str
    instructions: tuple[str, ...]
    cores: int
    gpus: tuple[str, ...]
    versions: Mapping[str, str]

    @classmethod
    def here(cls) -> Self:
        """Return this one."""
        cpuinfo = processor_fields()
        flags = {*cpuinfo.get("flags", cpuinfo.get("Features", "")).split()}
        versions = {name: installed.version_of(name) for name in ("tensorrt", "numpy", "pillow")}
        versions |= {name: runtime_version(name) for name in ("openvino", "onnxruntime")}
        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cpu=cpuinfo.get("model name") or platform.processor() or platform.machine(),
            instructions=tuple(name for name, its in _FLAGS.items() if flags & {*its}),
            cores=default_threads(),
            gpus=tuple(gpu.name for gpu in gpus()),
            versions={"python": platform.python_version()}
            | {name: version for name, version in versions.items() if version},
        )

    def __str__(self) -> str:
        """Return it in one line."""
        has = f" ({', '.join(self.instructions)})" if self.instructions else ""
        versions = (f"{name} {version}" for name, version in self.versions.items())
        return ", ".join(
            [f"{self.system}, {self.cores} cores of {self.cpu}{has}", *self.gpus, *versions]
        )
