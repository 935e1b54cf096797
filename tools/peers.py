"""What a user would write instead of this package: from a folder of photographs to FC7 in an .npy.

    python tools/peers.py NAME FOLDER OUTPUT MODEL

NAME is one of `PEERS`: plain torch that decodes in threads; with a DataLoader, as scripts for
torchvision's networks have it; that with `torch.compile`; ONNX Runtime with the file MODEL as it
was exported, with ONNX's own LRN, decoding in threads. Weights, crops and the list of files come
from the package. `tools/bench_peers.py` times them.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.reference import crop
from alexnet_deploy.model.spec import ModelSpec
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.pipeline import default_threads

BATCH = 32

Array = NDArray[Any]
Compute = Callable[[Array], Array]
"""Maps (N, H, W, 3) uint8 crops, N up to `BATCH`, to (N, 4096) vectors."""


class Crops:
    """The crops of some photographs, by number, as torch wants its datasets."""

    def __init__(self, paths: list[Path], spec: ModelSpec) -> None:
        self.paths, self.spec = paths, spec

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Array:
        with Image.open(self.paths[number]) as photograph:
            return crop(photograph.convert("RGB"), self.spec).copy()


def in_threads(crops: Crops) -> Iterator[Array]:
    """Yield batches that threads decode."""
    with ThreadPoolExecutor(default_threads()) as threads:
        decoded = iter(threads.map(crops.__getitem__, range(len(crops))))
        while some := list(islice(decoded, BATCH)):
            yield np.stack(some)


def in_processes(crops: Crops) -> Iterable[Array]:
    """Return the batches of torch's DataLoader, with a process for each core."""
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        crops,  # type: ignore[arg-type]
        batch_size=BATCH,
        num_workers=default_threads(),
    )
    # Copied: code that torch 2.13 compiles reads a little beyond the bytes of a batch, which in the
    # memory shared with a worker is another page, perhaps of nobody (signal 11).
    return (batch.numpy().copy() for batch in loader)


def by_torch(
    model: Path | None = None,
    *,
    is_compiled: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
) -> Compute:
    """Return the bundled network as one would write it in torch, with LRN in float32."""
    import torch
    import torch.nn.functional as F

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    checkpoint = load_checkpoint(bundled_checkpoint())
    spec = checkpoint.spec

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, array in checkpoint.arrays.items():
                self.register_buffer(flat(name), torch.from_numpy(array).float())
            for name in ("mean", "std"):
                values = getattr(spec.preprocessing, name)
                self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

        def forward(self, images: Any) -> Any:
            own = {name: getattr(self, flat(name)) for name in checkpoint.arrays}
            x = (images.permute(0, 3, 1, 2).to(dtype) - self.mean) / self.std
            x = F.pad(x, (0, 3, 0, 3))
            for number, group in enumerate(spec.groups, start=1):
                weight, bias = own[f"conv{number}.weight"], own[f"conv{number}.bias"]
                padding = 0 if number == 1 else weight.shape[-1] // 2
                stride = 4 if number == 1 else 1
                x = F.relu(F.conv2d(x, weight, bias, stride, padding, groups=group))
                if number <= 2:
                    halves = x.float().chunk(2, dim=1)
                    towers = [F.local_response_norm(half, 5, k=2.0) for half in halves]
                    x = torch.cat(towers, dim=1).to(dtype)
                if number in (1, 2, 5):
                    x = F.max_pool2d(x, 3, 2)
            x = x.flatten(1)
            for layer in ("fc6", "fc7"):
                x = F.linear(x, own[f"{layer}.weight.right"])
                x = F.relu(F.linear(x, own[f"{layer}.weight.left"], own[f"{layer}.bias"]))
            return x

    plain = Network().to(device, dtype)
    network = torch.compile(plain) if is_compiled else plain

    def compute(images: Array) -> Array:
        if is_compiled and len(images) < BATCH:  # another shape would be compiled again
            return compute(np.resize(images, (BATCH, *images.shape[1:])))[: len(images)]
        with torch.inference_mode():
            vectors: Array = network(torch.from_numpy(images).to(device)).float().cpu().numpy()
        return vectors

    return compute


def flat(name: str) -> str:
    """Return an array's name as torch's buffers may have it."""
    return name.replace(".", "_")


def by_onnxruntime(model: Path) -> Compute:
    """Return a session of the file as it is."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["fc7"], {"images": images})[0]


Feed = Callable[[Crops], Iterable[Array]]
PEERS: dict[str, tuple[Feed, Callable[[Path], Compute]]] = {
    "torch": (in_threads, by_torch),
    "torch-dataloader": (in_processes, by_torch),
    "torch-compile": (in_processes, partial(by_torch, is_compiled=True)),
    "onnxruntime": (in_threads, by_onnxruntime),
}


def main() -> None:
    """Embed a folder."""
    name, folder, output, model = sys.argv[1:]
    feed, opened = PEERS[name]
    crops = Crops(list(find_photographs([folder])), load_checkpoint(bundled_checkpoint()).spec)
    compute = opened(Path(model))
    np.save(output, np.concatenate([compute(batch) for batch in feed(crops)]))


if __name__ == "__main__":
    main()
