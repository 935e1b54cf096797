"""The remark of section 6.1: an auto-encoder that compresses FC7 to short binary codes.

    python -m training.experiments.codes VECTORS... --bits 64 [-o HEAD.onnx] [--results FILE.jsonl]

VECTORS are files of `alexnet-deploy embed`, or folders of photographs; the folder that a photograph
is in names its class. `--results` takes the figures of the coder and of ITQ at the same number of
bits, once: what stands there is not computed again. `-o` writes a coder for an index, fitted to
photographs of all classes.

    x (P,) -> rotation + correction -> sign -> code (b,) of -1 and 1 -> decoder -> x' (P,)

As in Krizhevsky and Hinton 2011, "Using very deep autoencoders for content-based image retrieval",
the code is binary while the network learns to reconstruct its input, but the layers are learnt end
to end, the gradient going straight through the sign (Bengio et al. 2013, section 4). Reconstruction
alone does not make near vectors' codes near: a second term of the loss asks who is whose neighbour,
by the vectors and by the codes, and compares (stochastic neighbour embedding, Hinton and Roweis
2002). The codes begin as those of iterative quantization (ITQ; Gong and Lazebnik 2011), the linear
method to beat, and what is learnt is a correction of them.

Judged is a coder that was fitted to the first half of the classes, by name, on the photographs of
the second half, each a query against all the others:

    recall    share of a query's ten nearest, by cosine, among the R first by Hamming distance,
              from which an exact comparison then picks them
    mAP       mean average precision for the class, ranked by the codes alone

    N vectors of D numbers, P <= 512 principal coordinates, b bits, B vectors in a batch
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from alexnet_deploy.choices import CODE_BITS
from alexnet_deploy.console.paths import FILE
from alexnet_deploy.console.reporting import complain, in_options, print_result
from alexnet_deploy.errors import AlexNetDeployError, DatasetError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.graph.coder_file import CoderFile, write_coder
from alexnet_deploy.index.coder import CoderRecord, coder_of
from alexnet_deploy.index.compressed_forms import hamming_distances
from alexnet_deploy.index.compression import principal_axes, unit_vectors
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.index.manifest import VectorSpace
from alexnet_deploy.inference.retrieval_figures import FIGURES, Distances, figures_of
from alexnet_deploy.inference.retrieval_forms import cosine_distances
from training.experiments.vectors import Vectors, read_vectors

NUM_COORDINATES = 512
HIDDEN = 512
NUM_STEPS, BATCH = 240, 1024
LEARNING_RATE = 1e-3  # of Adam, falling to 0 along a cosine
TEMPERATURES = (0.03, 0.2)
"""Of cosine similarities: who is nearest in a batch, and who is near at all."""
SHARPNESS = (10.0, 2.0)
"""Of the codes' similarities, at first; both are learnt."""
NUM_NEIGHBOURS = 10
"""A vector is mixed with one of so many: made vectors between real ones keep it from learning the
photographs by heart."""
NUM_FITTED = 20_000
"""Vectors at most, drawn by the seed: their neighbours are found by comparing all with all."""
NUM_NEAREST, FIRST = 10, (10, 50, 100, 200)


class _Sign(torch.autograd.Function):
    """-1 or 1 in the forward direction, the identity between them in the backward one."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits)
        return torch.where(logits > 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (logits,) = ctx.saved_tensors
        passed: torch.Tensor = gradient * (logits.abs() <= 1)
        return passed


class AutoEncoder(nn.Module):
    """From principal coordinates of vectors to a code and back.

    Args:
        points: (N, P), the coordinates that it will learn from, not centred.
        rotation: (b, P), of ITQ. It stays; what is learnt is the correction, at first 0.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    rotation: torch.Tensor

    def __init__(self, points: torch.Tensor, rotation: torch.Tensor) -> None:
        super().__init__()
        bits, width = rotation.shape
        self.register_buffer("mean", points.mean(0))
        self.register_buffer("scale", (points - self.mean).square().mean().sqrt())
        self.hidden, self.correction = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, bits)
        self.decoder = nn.Sequential(nn.Linear(bits, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width))
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)
        # About 1 from 0: most gradients pass the sign.
        turned = (points - self.mean) / self.scale @ rotation.T
        self.register_buffer("rotation", rotation / turned.abs().mean())

    def logits(self, points: torch.Tensor) -> torch.Tensor:
        """Return (B, b) numbers, above 0 where a bit is 1, for (B, P) coordinates."""
        x = (points - self.mean) / self.scale
        correction: torch.Tensor = self.correction(F.relu(self.hidden(x)))
        return x @ self.rotation.T + correction

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the code, (B, b) of -1 and 1, and the coordinates as reconstructed from it."""
        code: torch.Tensor = _Sign.apply(self.logits(points))  # type: ignore[no-untyped-call]
        return code, self.decoder(code) * self.scale + self.mean


def neighbour_loss(
    similarities: torch.Tensor, code: torch.Tensor, sharpness: torch.Tensor
) -> torch.Tensor:
    """Return the cross-entropy between two answers to: which of the batch are near to this one?

    Args:
        similarities: (B, B), of the vectors: cosines, or what differs from them by a constant.
        code: (B, b) of -1 and 1.
        sharpness: of the answer by the codes, whose similarities are -1..1; for each temperature.
    """
    itself = torch.eye(len(code), dtype=torch.bool)
    by_code = code @ code.T / code.shape[1]
    loss = torch.zeros(())
    for temperature, factor in zip(TEMPERATURES, sharpness, strict=True):
        wanted = (similarities / temperature).masked_fill(itself, -1e9).softmax(1)
        answer = (by_code * factor).masked_fill(itself, -1e9).log_softmax(1)
        loss = loss - (wanted * answer).sum(1).mean()
    return loss


def fit_coder(vectors: Vectors, bits: int, *, seed: int) -> CoderFile:
    """Return the encoder of an auto-encoder that is fitted to vectors, more than `bits`.

    What is random in it, the seed determines.
    """
    torch.manual_seed(seed)
    drawn = torch.randperm(len(vectors.rows))[:NUM_FITTED].numpy()
    sample = vectors.rows[drawn]
    unit = unit_vectors(sample)
    _, axes = principal_axes(unit, min(NUM_COORDINATES, *unit.shape))
    # Not centred, so that their products are cosine similarities, but for what no axis has.
    points = torch.from_numpy(unit @ axes.T.astype(np.float32))
    rotation = torch.from_numpy((fit_itq(sample, bits).weights[0] @ axes.T).astype(np.float32))
    network = AutoEncoder(points, rotation)
    _train(network, points)
    return coder_file(network, axes, vectors.space)


def _train(network: AutoEncoder, points: torch.Tensor) -> None:
    log_sharpness = nn.Parameter(torch.tensor(SHARPNESS).log())
    learnt: list[dict[str, Any]] = [
        {"params": network.parameters()},
        {"params": [log_sharpness], "lr": 10 * LEARNING_RATE},
    ]
    optimizer = torch.optim.Adam(learnt, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, NUM_STEPS)
    neighbours = _neighbours(points)
    for _ in range(NUM_STEPS):
        batch = torch.randperm(len(points))[:BATCH]
        others = neighbours[batch, torch.randint(neighbours.shape[1], batch.shape)]
        x = torch.lerp(points[batch], points[others], torch.rand(len(batch), 1) / 2)
        code, reconstruction = network(x)
        loss = F.mse_loss(reconstruction, x) / network.scale.square()
        loss = loss + neighbour_loss(x @ x.T, code, log_sharpness.exp())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _neighbours(points: torch.Tensor) -> torch.Tensor:
    """Return the numbers of the nearest others of each, (N, `NUM_NEIGHBOURS` or N - 1)."""
    count = min(NUM_NEIGHBOURS + 1, len(points))
    return torch.cat(
        [(some @ points.T).topk(count).indices[:, 1:] for some in torch.split(points, 1024)]
    )


def coder_file(network: AutoEncoder, axes: NDArray[np.float64], space: VectorSpace) -> CoderFile:
    """Return the encoder as two layers on vectors of length 1.

    The principal axes, (P, D), become part of the first. The rotation passes its ReLU as positive
    and negative part, whose difference it is.
    """
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}
    turn, one = state["rotation"], np.eye(len(state["rotation"]))
    first = np.vstack([turn, -turn, state["hidden.weight"]]) / state["scale"]
    bias = np.pad(state["hidden.bias"], (2 * len(turn), 0)) - first @ state["mean"]
    second = np.hstack([one, -one, state["correction.weight"]])
    return CoderFile(
        layer=space.layer,
        weights=[(first @ axes).astype(np.float32), second.astype(np.float32)],
        biases=[bias.astype(np.float32), state["correction.bias"].astype(np.float32)],
        record=CoderRecord(space=space).to_json(),
    )


def judge(vectors: Vectors, codes: NDArray[np.uint8]) -> dict[str, float]:
    """Return the figures of codes, (N, b / 8), as the module says; of what ties, the mean.

    Keys: mAP, exact_mAP (by cosine similarity of the vectors), recall_10, recall_50, ...
    """
    labels = np.unique(vectors.classes, return_inverse=True)[1].astype(np.int32)
    hamming, cosine = hamming_distances(codes), cosine_distances(vectors.rows)
    blocks = np.array_split(np.arange(len(labels)), len(labels) // 256 + 1)
    recalls = np.concatenate([_recalls(block, cosine, hamming) for block in blocks])
    column = FIGURES.index("map")
    figures = {
        "mAP": float(np.nanmean(figures_of(hamming, labels)[:, column])),
        "exact_mAP": float(np.nanmean(figures_of(cosine, labels)[:, column])),
    }
    means = zip(FIRST, recalls.mean(axis=0).tolist(), strict=True)
    return figures | {f"recall_{first}": mean for first, mean in means}


def _recalls(
    queries: NDArray[np.int64], cosine: Distances, hamming: Distances
) -> NDArray[np.float64]:
    """Return which share of the nearest of each query is among each of `FIRST`."""
    near, by_code = cosine(queries).copy(), hamming(queries).copy()
    for distances in (near, by_code):
        np.put_along_axis(distances, queries[:, None], np.inf, axis=1)  # itself
    nearest = np.argpartition(near, NUM_NEAREST)[:, :NUM_NEAREST]
    found = np.take_along_axis(by_code, nearest, axis=1)
    recalls = []
    for first in FIRST:
        last = np.partition(by_code, first - 1)[:, first - 1, None]
        places = first - (by_code < last).sum(axis=1, keepdims=True)  # for those as far as the last
        share = places / (by_code == last).sum(axis=1, keepdims=True)
        recalls.append(((found < last) + share * (found == last)).mean(axis=1))
    return np.stack(recalls, axis=1)


def measure(
    vectors: Vectors, bits: int, seed: int, done: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return `done` with the rows of both coders for `bits`, those that it lacks computed.

    Raises:
        DatasetError: too few photographs or classes.
    """
    names = np.unique(vectors.classes)
    is_known = np.isin(vectors.classes, names[: len(names) // 2])
    known, unknown = vectors.select(is_known), vectors.select(~is_known)
    if len(known.rows) <= bits or len(unknown.rows) <= max(FIRST):
        raise DatasetError(
            f"{len(known.rows):,} photographs to fit to and {len(unknown.rows):,} of other classes "
            f"to judge, expected more than {bits} and {max(FIRST)}; give more"
        )

    def trained() -> NDArray[np.uint8]:
        return coder_of(fit_coder(known, bits, seed=seed)).codes(unknown.rows)

    ways: dict[str, Callable[[], NDArray[np.uint8]]] = {
        "ITQ": lambda: fit_itq(known.rows, bits).codes(unknown.rows),
        "auto-encoder": trained,
    }
    rows = list(done)
    for name, codes_of in ways.items():
        key = {
            "identity": vectors.space.identity,
            "layer": vectors.space.layer,
            "num_known": len(known.rows),
            "num_judged": len(unknown.rows),
            "coder": name,
            "bits": bits,
            "seed": seed,
        }
        if not any(key.items() <= row.items() for row in done):
            start = time.perf_counter()
            codes = codes_of()
            seconds = time.perf_counter() - start
            rows.append(key | judge(unknown, codes) | {"seconds": round(seconds, 1)})
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the figures for people, as Markdown."""
    lines = [
        f"| coder | bits | {' | '.join(f'R={first}' for first in FIRST)} | mAP (exact) |",
        f"|---|---|{'---|' * len(FIRST)}---|",
    ]
    for row in sorted(rows, key=lambda row: (row["bits"], row["coder"], row["seed"])):
        recalls = " | ".join(f"{row[f'recall_{first}']:.3f}" for first in FIRST)
        exact = f"{row['mAP']:.3f} ({row['exact_mAP']:.3f})"
        lines.append(f"| {row['coder']} | {row['bits']} | {recalls} | {exact} |")
    return "\n".join(lines)


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: python -m training.experiments.codes fc7.parquet --bits 64 -o head.onnx",
)
@click.argument("sources", nargs=-1, required=True, type=FILE)
@click.option("--bits", type=click.Choice(CODE_BITS), default=64, show_default=True)
@click.option("-o", "--output", type=FILE, help="Coder to write, fitted to vectors of all classes.")
@click.option("--results", type=FILE, help="JSON lines that figures are added to.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def codes(
    sources: tuple[Path, ...], bits: int, output: Path | None, results: Path | None, seed: int
) -> None:
    """Fit an auto-encoder that makes binary codes of vectors, and judge it beside ITQ.

    SOURCES are .parquet or .npy files of alexnet-deploy embed, or folders of photographs, in one
    sub-folder for each class.
    """
    vectors = read_vectors(sources)
    done: list[dict[str, Any]] = []
    if results is not None:
        with suppress(FileNotFoundError):
            done = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    rows = measure(vectors, bits, seed, done)
    if results is not None and len(rows) > len(done):
        with atomic_write(results) as file:
            file.writelines(f"{json.dumps(row)}\n".encode() for row in rows)
    print_result(_table(rows))
    if output is not None:
        write_coder(fit_coder(vectors, bits, seed=seed), output)


def main() -> None:
    """Run the experiment; an error that a user can mend is one message."""
    try:
        codes(prog_name="python -m training.experiments.codes")
    except AlexNetDeployError as error:
        complain(f"Error: {in_options(error.message)}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
