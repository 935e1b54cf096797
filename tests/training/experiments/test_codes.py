"""The auto-encoder's codes keep neighbours of classes it has not seen, and leave as a coder."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from numpy.typing import NDArray

from alexnet_deploy.errors import DatasetError, IncompatibleFileError, UsageError
from alexnet_deploy.graph.coder_file import write_coder
from alexnet_deploy.index.coder import coder_of, open_coder
from alexnet_deploy.index.itq import fit_itq
from alexnet_deploy.inference.embeddings import EmbedOptions, embed
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.coders import space_of
from tests.support.fake_runner import FakeRunner, open_fake_runner, save_photograph
from training.experiments import codes
from training.experiments.codes import (
    AutoEncoder,
    coder_file,
    fit_coder,
    judge,
    measure,
    neighbour_loss,
)
from training.experiments.vectors import Vectors, read_vectors

D, BITS = 64, 64
SPACE = dataclasses.replace(space_of(), dimension=D)


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(codes, "NUM_STEPS", 20)
    monkeypatch.setattr(codes, "BATCH", 128)
    monkeypatch.setattr(codes, "HIDDEN", 32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for one another longer than such steps take
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made() -> Vectors:
    """Return 16 classes of 30, each around a centre of its own, along axes that all share."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((12, D)) / 4
    centres = rng.standard_normal((16, 1, 12))
    points = (centres + rng.standard_normal((16, 30, 12)) / 2).reshape(-1, 12)
    rows = 3 + points @ axes + rng.standard_normal((480, D)) / 20
    names = np.repeat([f"class {number:02}" for number in range(16)], 30)
    return Vectors(space=SPACE, rows=rows.astype(np.float16), classes=names)


def random_codes(vectors: Vectors, seed: int = 0) -> NDArray[np.uint8]:
    shape = (len(vectors.rows), BITS // 8)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_codes_of_unseen_classes_find_neighbours(made: Vectors) -> None:
    itq, trained = measure(made, BITS, 0, [])
    assert (itq["coder"], trained["coder"]) == ("ITQ", "auto-encoder")
    assert (trained["num_known"], trained["num_judged"]) == (240, 240)
    by_chance = judge(made.select(made.classes >= "class 08"), random_codes(made)[:240])
    assert by_chance["recall_10"] < 0.1
    assert trained["recall_10"] > max(0.5, itq["recall_10"] - 0.05)  # ITQ is at home here
    assert trained["mAP"] > by_chance["mAP"] + 0.3
    assert trained["recall_10"] <= trained["recall_50"] <= trained["recall_200"] <= 1


def test_before_any_training_the_codes_are_those_of_itq(
    made: Vectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "NUM_STEPS", 0)
    itq = np.unpackbits(fit_itq(made.rows, BITS).codes(made.rows))
    own = np.unpackbits(coder_of(fit_coder(made, BITS, seed=0)).codes(made.rows))
    assert (itq != own).mean() < 1e-3  # rounding decides those on the edge


def test_the_loss_is_lower_for_codes_that_agree_about_neighbours() -> None:
    torch.manual_seed(0)
    vectors = F.normalize(torch.randn(40, 16))
    code = torch.where(vectors @ torch.randn(16, 256) > 0, 1.0, -1.0)  # random hyperplanes
    sharpness = torch.tensor(codes.SHARPNESS)
    own = neighbour_loss(vectors @ vectors.T, code, sharpness)
    assert own < neighbour_loss(vectors @ vectors.T, code.roll(1, 0), sharpness) - 1


def test_the_seed_determines_the_coder(made: Vectors) -> None:
    contents = [fit_coder(made, BITS, seed=seed).to_bytes() for seed in (3, 3, 4)]
    assert contents[0] == contents[1] != contents[2]


def test_the_file_computes_what_the_network_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((D, 16)))[0].T
    points = torch.randn(50, 16) / 4
    network = AutoEncoder(points, torch.randn(BITS, 16))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    file = coder_file(network, axes, SPACE)
    vectors = rng.random((200, D), np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    with torch.no_grad():
        expected = network.logits(torch.from_numpy(unit @ axes.T.astype(np.float32))).numpy()
    hidden = np.maximum(unit @ file.weights[0].T + file.biases[0], 0)
    logits = hidden @ file.weights[1].T + file.biases[1]
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    write_coder(file, tmp_path / "head.onnx")
    ones = np.unpackbits(
        open_coder(tmp_path / "head.onnx", SPACE).codes(vectors), bitorder="little"
    )
    is_sure = np.abs(expected.ravel()) > 1e-4
    assert np.array_equal(ones[is_sure].astype(bool), expected.ravel()[is_sure] > 0)


def test_ties_count_as_their_mean(made: Vectors) -> None:
    some = made.select(made.classes < "class 10")
    figures = judge(some, np.zeros((300, 8), np.uint8))
    assert figures["recall_50"] == pytest.approx(50 / 299)
    assert judge(some, random_codes(some))["exact_mAP"] == figures["exact_mAP"]


def test_recall_is_the_chance_of_the_nearest_to_be_among_the_first(made: Vectors) -> None:
    some = made.select(made.classes < "class 07")
    packed = random_codes(some)
    bits, unit = np.unpackbits(packed, axis=1), some.rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    chances = []
    for query in range(210):
        others = np.delete(np.arange(210), query)
        by_code = (bits[others] != bits[query]).sum(1)
        for near in np.argsort(-(unit[others] @ unit[query]))[:10]:
            before, tied = (by_code < by_code[near]).sum(), (by_code == by_code[near]).sum()
            chances.append(min(max((50 - before) / tied, 0), 1))
    assert judge(some, packed)["recall_50"] == pytest.approx(np.mean(chances))


def test_what_is_done_is_not_computed_again(made: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measure(made, BITS, 0, [])

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(codes, "fit_coder", fail)
    assert measure(made, BITS, 0, rows) == rows
    with pytest.raises(AssertionError, match="computed again"):
        measure(made, BITS, 1, rows)


def test_too_few_photographs_to_judge_are_refused(made: Vectors) -> None:
    with pytest.raises(DatasetError, match="30 photographs to fit to and 60 of other classes"):
        measure(made.select(made.classes < "class 03"), BITS, 0, [])


def photographs(folder: Path) -> list[Path]:
    """Save six in two classes, of which the first has no direction: its red is 0."""
    return [
        save_photograph(folder / name / f"{number}.png", (red, 9, 9))
        for name, first in (("a", 0), ("b", 30))
        for number, red in enumerate((first, first + 10, first + 20))
    ]


def embedded(output: Path, *layers: str, precision: str = "fp32") -> Path:
    options = RunnerOptions(outputs=layers, precision=precision)  # type: ignore[arg-type]
    taken = photographs(output.parent / "photographs")
    broken = output.parent / "photographs" / "a" / "broken.png"
    broken.write_bytes(b"")
    scaled = EmbedOptions(layers=layers, decode=Decode.of("scaled"))
    embed(FakeRunner(options), [broken, *taken], output, scaled)
    return output


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_vectors_of_embed_are_read_with_their_classes_and_space(
    suffix: str, tmp_path: Path
) -> None:
    vectors = read_vectors([embedded(tmp_path / f"v{suffix}", "fc7")])
    assert vectors.classes.tolist() == ["a", "a", "b", "b", "b"]
    assert vectors.rows[:, 0].tolist() == [10, 20, 30, 40, 50]
    assert (vectors.space.identity, vectors.space.dimension) == ("0123456789abcdef", 4096)


def test_folders_of_photographs_are_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.experiments.vectors.open_runner_of", open_fake_runner)
    photographs(tmp_path / "photographs")
    from_folder = read_vectors([tmp_path / "photographs"])
    from_file = read_vectors([embedded(tmp_path / "v.npy", "fc7")])
    assert from_folder.space == from_file.space
    assert np.array_equal(from_folder.rows, from_file.rows)


def test_vectors_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    several = embedded(tmp_path / "two.parquet", "fc6", "fc7")
    with pytest.raises(UsageError, match="expected vectors of one layer"):
        read_vectors([several])
    with pytest.raises(UsageError, match=r"v\.json: no such file; embed"):
        read_vectors([tmp_path / "v.npy"])
    with pytest.raises(UsageError, match=r"expected a \.parquet or \.npy file"):
        read_vectors([tmp_path / "v.csv"])
    files = [embedded(tmp_path / f"{p}.npy", "fc7", precision=p) for p in ("fp32", "fp16")]
    with pytest.raises(IncompatibleFileError, match=r"fp16\.npy: its vectors are of another"):
        read_vectors(files)


def test_the_command_prints_a_table_keeps_its_rows_and_writes_the_coder(
    made: Vectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "read_vectors", lambda paths: made)
    results, head = tmp_path / "rows.jsonl", tmp_path / "head.onnx"
    command = ["v.npy", "--bits", str(BITS), "--results", str(results), "-o", str(head)]
    first, second = (CliRunner().invoke(codes.codes, command) for _ in range(2))
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout
    assert [line[:14] for line in first.stdout.splitlines()[2:]] == [
        "| ITQ | 64 | 0",
        "| auto-encoder",
    ]
    assert len([json.loads(line) for line in results.read_text().splitlines()]) == 2
    whole = coder_of(fit_coder(made, BITS, seed=0)).codes(made.rows)
    assert np.array_equal(open_coder(head, SPACE).codes(made.rows), whole)
