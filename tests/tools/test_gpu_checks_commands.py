"""The checks of the commands and of FAISS, with quick runners on the CPU in the GPU's place."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from gpu_checks import commands, faiss_gpu
from gpu_checks.check import Failed, Settings, Skipped
from numpy.typing import NDArray

from alexnet_deploy.cli import cli
from alexnet_deploy.errors import DeviceError
from alexnet_deploy.export import opening
from alexnet_deploy.index import model as index_runner
from alexnet_deploy.runtimes.base import RunnerOptions
from tests.support.fake_runner import FakeRunner, save_photographs

NOWHERE = Settings(scratch=Path("nowhere"))


class QuickRunner(FakeRunner):
    """A fake runner whose FC7 are pixels; run with one thread, it stands for the GPU."""

    is_wrong = False
    """On the GPU."""

    def run(self, images: NDArray[np.uint8]) -> Any:
        outputs = dict(super().run(images))
        if "fc7" in outputs:
            red = images[:, :192:3, :192:3, 0].reshape(len(images), 64 * 64)
            outputs["fc7"] = red.astype(np.float32)
        if self.is_wrong and self.options.threads == 1:
            for name, value in outputs.items():
                outputs[name] = np.roll(value, 1, axis=1)
                outputs[name][:, 4:] = 0
        return outputs


def run_here(*arguments: str, exit_code: int = 0) -> tuple[list[str], float]:
    """Stand in for `run_command`."""
    result = CliRunner().invoke(cli, [*arguments])
    assert result.exit_code == exit_code, result.output
    return result.stdout.splitlines(), 1.0


@pytest.fixture(autouse=True)
def _on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(model: Path | None, options: RunnerOptions, *, notify: object) -> QuickRunner:
        return QuickRunner(options)

    monkeypatch.setattr(opening, "open_runner_of", opened)
    monkeypatch.setattr(index_runner, "open_runner_of", opened)
    monkeypatch.setattr(commands, "run_command", run_here)
    monkeypatch.setattr(commands, "need_cuda_build", lambda: None)
    how = commands.DEVICES["cpu"]
    devices = {"cuda": (*how, "--threads", "1"), "cpu": (*how, "--threads", "2")}
    monkeypatch.setattr(commands, "DEVICES", devices)
    monkeypatch.chdir(tmp_path)


def test_labels_and_vectors_of_both_devices_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(scratch=tmp_path, photographs=save_photographs(tmp_path / "photographs"))
    figures = commands.classify_embed_index(settings)
    assert (figures["photographs"], figures["labels_equal"]) == (3, 3)
    assert figures["fc7_error_max"] == 0
    assert set(figures["seconds"]["cuda"]) == {"classify", "embed", "index"}
    for name in ("i", "cuda.npy", "cpu.npy"):
        path = Path(name)
        assert path.exists()
        path.rename(f"first-{name}")
    monkeypatch.setattr(QuickRunner, "is_wrong", True)
    with pytest.raises(Failed, match="3 other classes"):
        commands.classify_embed_index(settings)


def test_both_devices_search_for_more_queries_than_a_gpu_is_used_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = commands.search(NOWHERE)
    assert figures["queries"] == len(figures["nearest"]) == 20
    from alexnet_deploy.index.exact_search import _FEWEST_FOR_GPU

    assert figures["queries"] >= _FEWEST_FOR_GPU
    assert len(set(figures["nearest"])) > 5
    monkeypatch.setattr(QuickRunner, "is_wrong", True)
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.chdir(again)
    with pytest.raises(Failed, match="the CPU finds"):
        commands.search(NOWHERE)


@pytest.mark.parametrize("is_installed", [True, False])
def test_searching_is_skipped_only_where_faiss_is_not_there(
    monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    """One that is there and does not load is a fault, which the command then shows."""

    def broken(*arguments: str, exit_code: int = 0) -> Any:
        raise Failed("search ended with exit code 1: libcudart.so.13: cannot open", {})

    monkeypatch.setattr(commands, "run_command", broken)
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: is_installed)
    with pytest.raises(Failed if is_installed else Skipped, match=r"libcudart|needs faiss"):
        commands.search(NOWHERE)


class FakeGpu:
    """FAISS for GPUs, on the CPU: `error` is added to each product."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, num_gpus: int = 1) -> None:
        self.error = 0.0
        monkeypatch.setattr("faiss.knn_gpu", self._knn, raising=False)
        monkeypatch.setattr("faiss.StandardGpuResources", lambda: self, raising=False)
        monkeypatch.setattr("faiss.get_num_gpus", lambda: num_gpus, raising=False)
        monkeypatch.setattr(faiss_gpu, "NUM_VECTORS", 300)
        monkeypatch.setattr(faiss_gpu, "DIMENSION", 64)

    def _knn(self, gpu: object, queries: Any, vectors: Any, k: int, *, metric: int) -> Any:
        import faiss

        scores, indices = faiss.knn(queries, vectors, k, metric)
        return scores + np.float32(self.error), indices


def test_the_packages_own_search_scans_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch)
    figures = faiss_gpu.search(NOWHERE)
    assert figures["scans_on_the_gpu"] >= 1
    assert set(figures["seconds"]) == {"cuda", "cpu"}


def test_a_search_that_leaves_the_gpu_out_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch)
    monkeypatch.setattr(faiss_gpu, "NUM_QUERIES", 4)
    with pytest.raises(Failed, match="did not scan on the GPU"):
        faiss_gpu.search(NOWHERE)


def test_a_gpu_that_finds_others_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch)
    real = faiss_gpu._nearest

    def without_the_second(index: Any, queries: Any, gpu: Any) -> Any:
        rankings = real(index, queries, gpu)
        if gpu is not None:
            rankings[5].positions[1] += 1
        return rankings

    monkeypatch.setattr(faiss_gpu, "_nearest", without_the_second)
    with pytest.raises(Failed, match="finds others than the CPU"):
        faiss_gpu.search(NOWHERE)


def test_a_gpu_that_computes_in_tf32_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch).error = 5e-4
    with pytest.raises(DeviceError, match=r"device=.cpu."):
        faiss_gpu.search(NOWHERE)


def test_a_faiss_for_gpus_that_finds_none_is_a_fault_and_one_for_cpus_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("faiss.StandardGpuResources", raising=False)
    with pytest.raises(Skipped, match="a build for the CPU"):
        faiss_gpu.search(NOWHERE)
    FakeGpu(monkeypatch, num_gpus=0)
    with pytest.raises(Failed, match="made for GPUs, finds none"):
        faiss_gpu.search(NOWHERE)
