"""The checks of tools/gpu_check.py, with the CPU in the GPU's place: what they decide."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from gpu_checks import runner_rates, test_commands, test_engines, test_onnxruntime
from gpu_checks.runner_rates import measure
from numpy.typing import NDArray

from alexnet_deploy.cli import cli
from alexnet_deploy.export import opening
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.index import model as index_runner
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.gpu_driver import Gpu
from tests.support import gpu_marks
from tests.support.fake_runner import FakeRunner, save_photographs

if TYPE_CHECKING:
    from tests.support.pretended_gpu import PretendedGpu

TWO = varied_samples()[:2]
GPU = Gpu(name="", compute_capability="9.0", cuda_version="13.0")


@pytest.mark.parametrize(
    ("library", "module", "reason"),
    [
        ("torch", SimpleNamespace(version=SimpleNamespace(cuda=None)), "a build for the CPU"),
        ("torch", SimpleNamespace(version=SimpleNamespace(cuda="13.0")), ""),
        ("faiss", SimpleNamespace(), "a build for the CPU"),
        ("faiss", SimpleNamespace(StandardGpuResources=None), ""),
        ("nowhere", None, "not installed here"),
        ("numpy", None, ""),
    ],
)
def test_a_library_for_gpus_is_told_from_one_for_cpus(
    monkeypatch: pytest.MonkeyPatch, library: str, module: Any, reason: str
) -> None:
    monkeypatch.setattr(gpu_marks, "gpus", lambda: (GPU,))
    assert "needs 2 NVIDIA GPUs" in gpu_marks.why_skipped(library, 2)
    with pytest.MonkeyPatch.context() as patch:
        if module is not None:
            patch.setattr("alexnet_deploy.installed.has_module", lambda name: True)
            patch.setitem(sys.modules, library, module)
        found = gpu_marks.why_skipped(library)
    assert reason in found
    assert bool(reason) == bool(found)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> "PretendedGpu":
    from tests.support.pretended_gpu import pretend

    return pretend(monkeypatch)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("wrong_with", "said"),
    [
        ((), None),
        (("EXHAUSTIVE",), "fp32 is off in: .*logits.*; with a heuristic search .* it is right$"),
    ],
)
def test_where_fp32_is_off_another_search_tells_whether_the_graph_is(
    monkeypatch: pytest.MonkeyPatch, wrong_with: tuple[str, ...], said: str | None
) -> None:
    from alexnet_deploy.runtimes.onnxruntime_cuda_runner import _PROVIDER_OPTIONS

    def build(checkpoint: Any, outputs: Any, precision: Any) -> Any:
        if _PROVIDER_OPTIONS["cudnn_conv_algo_search"] in wrong_with:
            checkpoint.arrays["fc8.bias"][3] += 1
        return build_file(checkpoint, outputs, precision)

    monkeypatch.setattr(test_onnxruntime, "BATCH", 2)
    monkeypatch.setattr(test_onnxruntime, "varied_samples", lambda: TWO)
    monkeypatch.setattr(test_onnxruntime, "build_file", build)
    figures: dict[str, Any] = {}
    outcome = pytest.raises(AssertionError, match=f"(?m){said}") if said else nullcontext()
    with outcome:
        test_onnxruntime.test_parity("fp32", figures, monkeypatch)
    assert ("heuristic" in figures) == bool(said)
    assert list(figures["nodes"]) == ["CUDAExecutionProvider"]
    assert figures["verification"]


@contextmanager
def upload(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    yield lambda: None


@pytest.mark.usefixtures("gpu")
def test_rates_are_taken_at_each_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_onnxruntime, "BATCHES", (1, 2))
    monkeypatch.setattr(test_onnxruntime, "uploading", upload)
    monkeypatch.setattr(runner_rates, "TURN_S", 0.0)
    monkeypatch.setattr(runner_rates, "ROUNDS", 1)
    monkeypatch.setattr(runner_rates, "NUM_CONSUMED", 1)
    figures: dict[str, Any] = {}
    test_onnxruntime.test_rates("fp32", figures)
    assert list(figures) == ["batch_1", "batch_2"]
    assert all(rate > 0 for rates in figures.values() for rate in rates.values())


def test_rates_are_medians_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first round warms up, and each is faster. Eight batches are consumed.
    first = (4.0, 1.0, 8 * 2.0, 8 * 3.0)
    taken = iter([*[100.0] * 4, *(each / 2**n for n in range(9) for each in first)])
    monkeypatch.setattr(runner_rates, "seconds_of", lambda *_, **__: next(taken))
    monkeypatch.setattr(runner_rates, "in_turns", in_order)
    assert measure(FakeRunner(RunnerOptions(batch_size=8)), upload) == {
        "images_per_s": 8 / (4 / 16),
        "upload_images_per_s": 8 / (1 / 16),
        "consumed_images_per_s": 8 / (2 / 16),
        "consumed_in_turn_images_per_s": 8 / (3 / 16),
        "times_in_turn": 1.5,
    }


def in_order(timers: dict[str, Callable[[], float]], num_rounds: int) -> dict[str, list[float]]:
    taken = [{name: timer() for name, timer in timers.items()} for _ in range(num_rounds)]
    return {name: [each[name] for each in taken] for name in timers}


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


@pytest.fixture
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (opening, index_runner):
        monkeypatch.setattr(
            module, "open_runner_of", lambda model, options, *, notify: QuickRunner(options)
        )
    monkeypatch.setattr(test_commands, "run_command", run_here)
    how = test_commands.DEVICES["cpu"]
    devices = {"cuda": (*how, "--threads", "1"), "cpu": (*how, "--threads", "2")}
    monkeypatch.setattr(test_commands, "DEVICES", devices)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_quick")
def test_labels_and_vectors_of_both_devices_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = save_photographs(tmp_path / "photographs")
    figures: dict[str, Any] = {}
    test_commands.test_classify_embed_index(photographs, figures)
    assert (figures["photographs"], figures["labels_equal"]) == (3, 3)
    assert figures["fc7_error_max"] == 0
    assert set(figures["seconds"]["cuda"]) == {"classify", "embed", "index"}
    for name in ("i", "cuda.npy", "cpu.npy"):
        Path(name).rename(f"first-{name}")
    monkeypatch.setattr(QuickRunner, "is_wrong", True)
    with pytest.raises(AssertionError, match="3 other classes"):
        test_commands.test_classify_embed_index(photographs, {})


@pytest.mark.usefixtures("_quick")
def test_both_devices_search_for_more_queries_than_a_gpu_is_used_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexnet_deploy.index.exact_search import _FEWEST_FOR_GPU

    figures: dict[str, Any] = {}
    test_commands.test_search(figures)
    assert figures["queries"] == len(figures["nearest"]) >= _FEWEST_FOR_GPU
    assert len(set(figures["nearest"])) > 5
    monkeypatch.setattr(QuickRunner, "is_wrong", True)
    shutil.rmtree("cuda")
    shutil.rmtree("cpu")
    with pytest.raises(AssertionError, match="the CPU finds"):
        test_commands.test_search({})


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Let commands succeed, and write what `export` would; return how they were called."""
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[str, ...]] = []

    def run_command(*arguments: str, exit_code: int = 0) -> tuple[list[str], float]:
        calls.append((*arguments, f"exit {exit_code}"))
        if arguments[0] == "classify":
            right = ("a", "b") if "cpu" in arguments else LABELS
            return [json.dumps({"predictions": [{"label": label}]}) for label in right], 1.0
        Path("model.engine").write_bytes(bytes(100))
        Path("model.engine.json").write_text("{}", "utf-8")
        return [f'{{"report": {REPORT["report"]}}}'], 1.0

    monkeypatch.setattr(test_engines, "run_command", run_command)
    monkeypatch.setattr(test_engines, "classes", test_engines.classes.__wrapped__)
    return calls


LABELS = ["a", "b"]
REPORT = {"report": "null"}


@pytest.mark.parametrize(
    ("labels", "lost", "said"),
    [("ab", 0, ""), ("aa", 0, "class of a CPU in fp32 for 50.0%"), ("ab", 9, "lost more than 8")],
)
def test_an_engine_is_compared_timed_and_refused_when_damaged(
    built: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    labels: str,
    lost: int,
    said: str,
) -> None:
    for name, value in {
        "opened": lambda path, batch: FakeRunner(RunnerOptions(batch_size=batch)),
        "lost_mib": lambda runner: lost,
        "PROFILE": {"min": 1, "opt": 2, "max": 4},
        "uploading": upload,
        "SAME_CLASS": {"fp32": 1.2},  # of two photographs, all
    }.items():
        monkeypatch.setattr(test_engines, name, value)
    monkeypatch.setattr(runner_rates, "TURN_S", 0.0)
    LABELS[:] = labels
    figures: dict[str, Any] = {}
    path = test_engines.built(figures, "--trt")
    arguments = (path, "fp32", Path("photographs"), figures)
    if said:
        with pytest.raises(AssertionError, match=said):
            test_engines.check_engine(*arguments)
        return
    test_engines.check_engine(*arguments)
    assert (figures["build_s"], figures["same_class"]) == (1.0, 1.0)
    assert figures["batch_4"]["images_per_s"] > 0
    assert [call[::2] for call in built[1:3]] == [
        ("verify", "exit 0"),
        ("verify", f"exit {test_engines.DAMAGED}"),
    ]
    other = path.with_name("damaged.engine").read_bytes()
    assert sum(a != b for a, b in zip(path.read_bytes(), other, strict=True)) == 1


def test_a_leak_is_what_many_batches_take_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    free, runs = [100 * 2**20], [0]

    class Leaking(FakeRunner):
        def run(self, images: NDArray[np.uint8]) -> Any:
            runs[0] += 1
            free[0] -= 2**20 if runs[0] in (1, 40, 50) else 0
            return super().run(images)

    monkeypatch.setattr(test_engines, "free_bytes", lambda: free[0])
    monkeypatch.setattr(test_engines, "NUM_BATCHES", 50)
    assert test_engines.lost_mib(Leaking(RunnerOptions(batch_size=1, outputs=("fc7",)))) == 2
    assert runs[0] > 50


@pytest.mark.parametrize(
    ("here", "precision", "verified", "target", "outcome"),
    [
        ("8.9", "fp32", True, "8.9", "checked"),
        ("8.9", "fp32", False, "8.9", "failed"),
        ("7.5", "fp16", True, "7.5", "checked"),
        ("7.5", "fp32", True, None, "skipped"),
        ("9.0", "fp16", False, "", "refused"),
        ("9.0", "fp16", True, "", "checked"),
    ],
)
def test_rtx_engines_are_built_for_the_gpu_at_hand_where_the_library_knows_it(
    built: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    here: str,
    precision: str,
    verified: bool,
    target: str | None,
    outcome: str,
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'alexnet-deploy[rtx]'")
    gpu = Gpu(name="", compute_capability=here, cuda_version="13.0")
    monkeypatch.setattr(test_engines, "current_gpu", lambda: gpu)
    monkeypatch.setattr(test_engines, "check_engine", lambda *_: None)
    monkeypatch.setitem(REPORT, "report", '{"checks": []}' if verified else "null")
    arguments: Any = (precision, Path("photographs"), {})
    if outcome == "checked":
        test_engines.test_rtx(*arguments)
    elif outcome == "failed":
        with pytest.raises(AssertionError, match="not verified"):
            test_engines.test_rtx(*arguments)
    else:
        reason = "refused here: this GPU is 9.0" if outcome == "refused" else "fp16 only"
        with pytest.raises(pytest.skip.Exception, match=reason):
            test_engines.test_rtx(*arguments)
    if target is None:
        assert built == []
        return
    words = built[0]
    assert words[:4] == ("export", "--rtx", "--precision", precision)
    assert ("--compute-capability" in words) == bool(target)
    assert not target or words[words.index("--compute-capability") + 1] == target
    assert (("verify", "model.engine", "exit 1") in built) == (outcome == "refused")
