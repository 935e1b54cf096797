"""A processor on which int8 pays for a dozen photographs."""

from pathlib import Path

import pytest

from alexnet_deploy.export import fast
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes import processor
from tests.support.index_runner import save

NUM_PHOTOGRAPHS = 12


def pretend(patch: pytest.MonkeyPatch) -> None:
    """Let `fast` choose int8 for photographs such as `copied` makes."""
    from alexnet_deploy.runtimes import openvino_runner

    patch.setattr(processor, "processor_fields", lambda: {"flags": "fpu avx2"})
    patch.setattr(openvino_runner, "native_bf16", lambda: False)
    patch.setattr(fast, "BREAK_EVEN", {"fp32": NUM_PHOTOGRAPHS, "bf16": NUM_PHOTOGRAPHS})


def copied(folder: Path, count: int = NUM_PHOTOGRAPHS) -> Path:
    """Return a folder of photographs."""
    folder.mkdir(exist_ok=True)
    for number, path in enumerate(varied_samples()[:count]):
        copy(path, folder / f"{number:02}.jpg")
    return folder


def copy(source: Path, target: Path, behind: bytes = b"") -> Path:
    """Copy a photograph; bytes behind its end make another file with the same pixels."""
    return save(target, source.read_bytes() + behind)
