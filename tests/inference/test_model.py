"""An open model: the same numbers for one photograph or many, in any thread, until it is closed."""

import asyncio
import gc
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from alexnet_deploy.choices import Runtime
from alexnet_deploy.errors import ClosedError, UsageError
from alexnet_deploy.export.opening import open_model
from alexnet_deploy.inference.model import Model
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner
from tests.support.waiting import PATIENCE_S

RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnxruntime")
PHOTOGRAPHS = varied_samples()[:12]


@pytest.fixture(scope="module", params=RUNTIMES)
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with open_model(runtime=request.param, batch_size=8) as model:
        yield model


@pytest.fixture(scope="module")
def vectors(model: Model) -> NDArray[np.float32]:
    return model.embed(PHOTOGRAPHS).vectors


def test_a_photograph_has_the_same_bits_in_a_batch_of_any_size(
    model: Model, vectors: NDArray[np.float32]
) -> None:
    for size in range(1, 9):
        some = model.embed(PHOTOGRAPHS[:size])
        assert np.array_equal(some.vectors, vectors[:size]), size


def test_a_failure_is_a_row_of_nan_with_its_reason(
    model: Model, vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    images = [PHOTOGRAPHS[0], tmp_path / "bad.jpg", PHOTOGRAPHS[1], tmp_path / "gone.jpg"]
    progress: list[int] = []
    result = model.embed(images, progress=progress.append)
    assert len(result) == 4
    assert np.array_equal(result.vectors[[0, 2]], vectors[:2])
    assert np.isnan(result.vectors[[1, 3]]).all()
    assert sorted(result.failures) == [1, 3]
    assert "not an image" in result.failures[1]
    assert progress == [1, 2, 3, 4]
    assert np.asarray(result) is not None
    assert np.asarray(result, np.float64).dtype == np.float64
    one_by_one = list(model.iter_embed(iter(images)))
    assert [one.path for one in one_by_one] == images
    assert [one.error is None for one in one_by_one] == [True, False, True, False]
    classified = list(model.classify(images))
    assert [one.error is None for one in classified] == [True, False, True, False]
    assert [len(one.predictions) for one in classified] == [5, 0, 5, 0]


def test_nothing_gives_no_rows_and_no_results(model: Model) -> None:
    assert model.embed([]).vectors.shape == (0, 4096)
    assert list(model.iter_embed([])) == []
    assert list(model.classify([])) == []


def test_any_layer_can_be_asked_for(model: Model) -> None:
    maps = model.embed(PHOTOGRAPHS[0], layer="pool5").vectors
    assert maps.shape == (1, 256, 6, 6)
    means = model.embed(PHOTOGRAPHS[0], layer="pool5", pool="mean").vectors
    np.testing.assert_allclose(means, maps.mean(axis=(2, 3)), rtol=1e-5)
    largest = model.embed(PHOTOGRAPHS[0], layer="pool5", pool="max").vectors
    assert np.array_equal(largest, maps.max(axis=(2, 3)))
    with pytest.raises(UsageError, match="fc7 has none"):
        model.embed(PHOTOGRAPHS[0], pool="mean")
    with pytest.raises(UsageError, match=r"layer 'fc9' does not exist .* choose from: conv1"):
        model.embed(PHOTOGRAPHS, layer="fc9")
    with pytest.raises(UsageError, match="layer 'fc9' does not exist"):
        model.iter_embed(PHOTOGRAPHS, layer="fc9")


def test_an_open_layer_can_be_used_while_another_is_loaded() -> None:
    loading, may_end = threading.Event(), threading.Event()
    opened: list[tuple[str, ...]] = []

    def open_slowly(layers: tuple[str, ...]) -> FakeRunner:
        opened.append(layers)
        loading.set()
        assert may_end.wait(PATIENCE_S)
        return FakeRunner(RunnerOptions(outputs=layers))

    with (
        Model(FakeRunner(RunnerOptions()), open_slowly) as model,
        ThreadPoolExecutor(3) as executor,
    ):
        both = [executor.submit(model.embed, PHOTOGRAPHS[0], layer="conv5") for _ in range(2)]
        assert loading.wait(PATIENCE_S)
        open_already = executor.submit(model.embed, PHOTOGRAPHS[0])
        try:
            assert len(open_already.result(PATIENCE_S)) == 1
        finally:
            may_end.set()
        assert [len(one.result(PATIENCE_S)) for one in both] == [1, 1]
    assert opened == [("conv5",)]


def test_a_wrong_argument_is_told_at_the_call(model: Model) -> None:
    with pytest.raises(UsageError, match=r"images\[1\] is of type int"):
        model.classify([PHOTOGRAPHS[0], 3])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="top is 0, expected 1 or more"):
        model.classify(PHOTOGRAPHS, top=0)
    with pytest.raises(UsageError, match="top is '5', expected a whole number"):
        model.classify(PHOTOGRAPHS, top="5")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"layer is \['fc7'\], expected the name of one"):
        model.embed(PHOTOGRAPHS, layer=["fc7"])  # type: ignore[arg-type]


def test_threads_get_the_bits_that_one_gets(model: Model, vectors: NDArray[np.float32]) -> None:
    barrier = threading.Barrier(4)

    def embed(first: int) -> bool:
        barrier.wait()
        order = np.roll(np.arange(len(PHOTOGRAPHS)), first)
        images = [PHOTOGRAPHS[number] for number in order]
        return all(
            np.array_equal(model.embed(images).vectors, vectors[order]) for _ in range(3)
        ) and np.array_equal(model.embed(images[:1]).vectors, vectors[order[:1]])

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(embed, range(4)))


def test_asyncio_gets_them_too(model: Model, vectors: NDArray[np.float32]) -> None:
    async def embed_all() -> list[NDArray[np.float32]]:
        calls = (asyncio.to_thread(model.embed, path) for path in PHOTOGRAPHS)
        return [result.vectors for result in await asyncio.gather(*calls)]

    assert np.array_equal(np.concatenate(asyncio.run(embed_all())), vectors)


def test_images_may_be_changed_as_soon_as_the_next_is_asked_for(model: Model) -> None:
    """As by a camera that gives one buffer again and again."""
    frames = [np.asarray(Image.open(path).convert("RGB").resize((64, 48))) for path in PHOTOGRAPHS]

    def camera() -> Iterator[NDArray[np.uint8]]:
        buffer = np.empty((48, 64, 3), np.uint8)
        for frame in frames:
            buffer[:] = frame
            yield buffer

    assert np.array_equal(model.embed(camera()).vectors, model.embed(frames).vectors)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_closed_model_says_so(runtime: Runtime) -> None:
    model = open_model(runtime=runtime)
    begun = model.iter_embed(PHOTOGRAPHS)
    next(begun)
    waiting = model.classify(PHOTOGRAPHS)
    model.close()
    model.close()
    for use in (model.embed, model.iter_embed, model.classify):
        with pytest.raises(ClosedError, match="the model is closed; open it again"):
            use(PHOTOGRAPHS)
    with pytest.raises(ClosedError, match="is closed"):
        list(waiting)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forks
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_process_is_told_to_open_its_own(runtime: Runtime) -> None:
    with open_model(runtime=runtime) as model:
        with pytest.raises(TypeError, match="cannot be sent to another process; open it there"):
            pickle.dumps(model)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                for layer in (
                    "fc7",
                    "conv5",
                ):  # of a network that is loaded, and of one that is not
                    with pytest.raises(ClosedError) as refused:
                        model.embed(PHOTOGRAPHS[0], layer=layer)
                    os.write(writer, f"{refused.value}\n".encode())
                model.close()  # leaves it to the parent, whose it is
                gc.collect()
                os.write(writer, b"closed")
            finally:
                os._exit(0)
        assert os.waitpid(child, 0) == (child, 0)
        os.close(writer)
        with os.fdopen(reader) as said:
            *refusals, end = said.read().splitlines()
        assert all("was forked; open it in each process" in line for line in refusals)
        assert (len(refusals), end) == (2, "closed")
        assert model.embed(PHOTOGRAPHS[0]).failures == {}
