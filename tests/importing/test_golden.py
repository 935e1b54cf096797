"""What every kind of published file says of a photograph, held to numbers that were kept.

`python tests/importing/test_golden.py`, from the root of the project, writes golden.json anew.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import alexnet_deploy as ad
from alexnet_deploy.importing.adoption import ImportOptions
from alexnet_deploy.importing.opening import import_weights
from alexnet_deploy.model.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.photographs.samples import sample_paths
from tests.support.golden_files import PUBLISHED, write_mean
from tests.support.golden_networks import NETWORKS, NUM_CLASSES, probabilities

GOLDEN = Path(__file__).with_name("golden.json")
PHOTOGRAPH = next(path for path in sample_paths() if path.parent.name == "Motorbikes")
ALLOWED = 1e-5

Serve = Callable[[Checkpoint], NDArray[np.float64]]


def kept() -> dict[str, NDArray[np.float64]]:
    numbers: dict[str, list[float]] = json.loads(GOLDEN.read_text())
    return {name: np.array(row) for name, row in numbers.items()}


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Serve a checkpoint as users do; those of one identity are one network, served once."""
    folder = tmp_path_factory.mktemp("golden")
    served: dict[str, NDArray[np.float64]] = {}

    def of(checkpoint: Checkpoint) -> NDArray[np.float64]:
        if checkpoint.identity not in served:
            path = folder / "imported.safetensors"
            save_checkpoint(checkpoint, path)
            with ad.open_model(path) as model:
                (result,) = model.classify([PHOTOGRAPH], top=NUM_CLASSES)
            found = sorted(result.predictions, key=lambda each: each.index)
            served[checkpoint.identity] = np.array([each.probability for each in found])
        return served[checkpoint.identity]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield of
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not outlive the test: files have 72 MB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_independent_implementation_gives_what_was_kept(name: str) -> None:
    np.testing.assert_allclose(probabilities(name, PHOTOGRAPH), kept()[name], rtol=0, atol=1e-8)


def test_the_kept_numbers_tell_the_networks_apart() -> None:
    """Five of them have the same weights: only padding, LRN and preprocessing differ."""
    rows = list(kept().values())
    assert list(kept()) == list(NETWORKS)
    for number, row in enumerate(rows):
        assert all(np.abs(row - other).max() > 100 * ALLOWED for other in rows[:number])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_gives_what_was_kept(name: str, folder: Path, serve: Serve) -> None:
    published = PUBLISHED[name]
    pytest.importorskip(published.needs)
    path = published.write(folder)
    mean = write_mean(folder) if published.has_mean else None
    checkpoint = import_weights(path, ImportOptions(preset=published.network), mean=mean).checkpoint
    assert checkpoint.spec.preset == published.network
    np.testing.assert_allclose(serve(checkpoint), kept()[published.network], rtol=0, atol=ALLOWED)


def main() -> None:
    """Write the numbers anew."""
    rows = {name: np.round(probabilities(name, PHOTOGRAPH), 10).tolist() for name in NETWORKS}
    lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
