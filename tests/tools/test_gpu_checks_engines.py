"""The checks of engines, with the CPU in the GPU's place: what they compare, time and decide."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import parity
import pytest
from gpu_checks import engines, onnxruntime_gpu, reference, runner_rates
from gpu_checks.check import Failed, Settings, Skipped
from gpu_checks.photographs import judged
from gpu_checks.reference import bundled, compute, expected, spread
from gpu_checks.runner_rates import measure, peer_of
from gpu_checks.torch_forward import forward_of
from numpy.typing import NDArray
from parity import LAYERS, reference_layers

from alexnet_deploy.choices import Precision
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.runtimes.gpu_driver import Gpu
from tests.support.fake_runner import FakeRunner
from tests.support.networks import noise, random_checkpoint, relative_error

if TYPE_CHECKING:
    from tests.support.pretended_gpu import PretendedGpu

TWO = varied_samples()[:2]


def settings_of(folder: Path, num_photographs: int) -> Settings:
    photographs = folder / "photographs"
    photographs.mkdir()
    for number, path in enumerate(varied_samples()[:num_photographs]):
        shutil.copy(path, photographs / f"{number}.jpg")
    return Settings(scratch=folder, photographs=photographs)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a run whose reference was computed, on five photographs."""
    made = settings_of(tmp_path_factory.mktemp("run"), 5)
    figures = compute(made)
    assert (figures["in_the_folder"], figures["photographs"]) == (5, 5)
    return made


def test_the_reference_is_computed_once_for_all(settings: Settings) -> None:
    assert settings.photographs is not None
    paths = spread(sorted(settings.photographs.iterdir()))
    known = expected(settings)
    crops = [preprocess(load_photograph(path), bundled().spec) for path in paths]
    np.testing.assert_array_equal(known.crops, np.stack(crops))
    layers = reference_layers(bundled(), paths)
    for name in LAYERS:
        assert relative_error(known.layers[name], layers[name]) < 1e-6


def test_where_the_time_does_not_suffice_an_even_part_is_compared_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "ENOUGH_S", -1.0)
    monkeypatch.setattr(reference, "CHUNK", 2)
    made = settings_of(tmp_path, 8)
    assert made.photographs is not None
    figures = compute(made)
    assert (figures["in_the_folder"], figures["photographs"]) == (8, 2)
    chosen = spread(sorted(made.photographs.iterdir()))[:2]
    crops = [preprocess(load_photograph(path), bundled().spec) for path in chosen]
    np.testing.assert_array_equal(expected(made).crops, np.stack(crops))


@pytest.mark.parametrize("part", [50, 100, 333, 1695])
def test_any_beginning_of_a_spread_order_is_an_even_part(part: int) -> None:
    order = spread([Path(f"{number}") for number in range(1695)])
    assert sorted(int(path.name) for path in order) == list(range(1695))
    tenths = np.bincount([int(path.name) * 10 // 1695 for path in order[:part]], minlength=10)
    assert np.abs(tenths - part / 10).max() <= 2


def test_without_the_reference_nothing_can_be_compared(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="named reference"):
        expected(Settings(scratch=tmp_path))


def rows(count: int, scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return {
        "logits": scale * rng.standard_normal((count, 101), np.float32),
        "fc7": scale * rng.random((count, 64), np.float32),
    }


def test_other_results_on_photographs_fail() -> None:
    known, near = rows(300), rows(300, scale=1.001)
    figures = judged(rows(300), known, "fp32", {"runs": "here"})
    assert (figures["top1_agreement"], figures["runs"]) == (1, "here")
    with pytest.raises(Failed, match="off") as error:
        judged(near, known, "fp32", {"runs": "here"})
    assert error.value.figures["runs"] == "here"
    assert judged(near, known, "fp16", {})["logits_error_max"] > 5e-4
    with pytest.raises(Failed, match="mean cosine"):
        judged({name: each[::-1] for name, each in rows(300).items()}, known, "fp16", {})
    flipped = rows(300)
    flipped["logits"][:3] *= -1
    with pytest.raises(Failed, match="agreement"):
        judged(flipped, known, "bf16", {})
    few, as_few = ({name: each[:20] for name, each in all_.items()} for all_ in (flipped, known))
    assert judged(few, as_few, "bf16", {})["top1_agreement"] == 0.85, "too few"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parity, engines, onnxruntime_gpu):
        monkeypatch.setattr(module, "BATCH", 3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> "PretendedGpu":
    from tests.support.pretended_gpu import pretend

    pretended = pretend(monkeypatch)
    monkeypatch.setattr(onnxruntime_gpu, "varied_samples", lambda: TWO)
    return pretended


@pytest.mark.usefixtures("small_batches")
def test_onnx_runtime_is_compared_on_all_photographs(
    gpu: "PretendedGpu", settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = onnxruntime_gpu.parity(settings, precision="fp32")
    assert figures["photographs"] == 5
    assert figures["logits_error_max"] < 1e-5
    assert list(figures["nodes"]) == ["CUDAExecutionProvider"]
    assert figures["verification"]
    other = bundled()
    other.arrays["fc8.bias"][3] += 1
    monkeypatch.setattr(onnxruntime_gpu, "bundled", lambda: other)
    with pytest.raises(Failed, match=r"fp32: .* off"):
        onnxruntime_gpu.parity(settings, precision="fp32")


@pytest.mark.parametrize("placement", [None, {}])
def test_that_all_runs_on_the_gpu_must_be_shown(
    gpu: "PretendedGpu", settings: Settings, monkeypatch: pytest.MonkeyPatch, placement: Any
) -> None:
    class Untold(FakeRunner):
        def __init__(self, file: object, options: RunnerOptions) -> None:
            super().__init__(options)
            self.placement = placement

    module = "alexnet_deploy.runtimes.onnxruntime_cuda_runner"
    monkeypatch.setattr(f"{module}.OnnxRuntimeCudaRunner", Untold)
    with pytest.raises(Failed, match="not shown that all of it runs on the GPU"):
        onnxruntime_gpu.parity(settings, precision="fp32")


@contextmanager
def upload(images: NDArray[np.uint8]) -> Iterator[Callable[[], None]]:
    yield lambda: None


def fake_peer(precision: str) -> AbstractContextManager[Callable[[int], float]]:
    return nullcontext(lambda batch: 2.0 * batch)


def test_rates_stand_beside_the_upload_and_torch(
    gpu: "PretendedGpu", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_gpu, "BATCHES", (1, 2))
    monkeypatch.setattr(onnxruntime_gpu, "_upload", upload)
    monkeypatch.setattr(onnxruntime_gpu, "peer_of", fake_peer)
    monkeypatch.setattr(runner_rates, "TURN_S", 0.0)
    figures = onnxruntime_gpu.rates(Settings(scratch=Path()), precision="fp32")
    assert list(figures) == ["batch_1", "batch_2"]
    for rates in figures.values():
        assert rates["torch_images_per_s"] == 0.5
        assert rates["upload_images_per_s"] > rates["images_per_s"] > 0.5
        assert rates["times_torch"] > 1
        assert rates["consumed_images_per_s"] > 0.5


def test_rates_are_medians_over_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FakeRunner(RunnerOptions(batch_size=8))
    # The first round warms up, and each is faster. Eight batches are consumed.
    first = (4.0, 1.0, 8 * 2.0, 8 * 3.0)
    taken = iter([*[100.0] * 4, *(each / 2**n for n in range(9) for each in first)])
    monkeypatch.setattr(runner_rates, "seconds_of", lambda work, at_least_s: next(taken))
    monkeypatch.setattr(runner_rates, "in_turns", in_order)
    assert measure(runner, upload, None) == {
        "images_per_s": 8 / (4 / 16),
        "upload_images_per_s": 8 / (1 / 16),
        "consumed_images_per_s": 8 / (2 / 16),
        "consumed_in_turn_images_per_s": 8 / (3 / 16),
        "times_in_turn": 1.5,
    }


def in_order(timers: dict[str, Callable[[], float]], num_rounds: int) -> dict[str, list[float]]:
    taken = [{name: timer() for name, timer in timers.items()} for _ in range(num_rounds)]
    return {name: [each[name] for each in taken] for name in timers}


TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 5e-2}


@pytest.mark.parametrize("precision", TOLERANCES)
def test_torch_does_the_same_work(precision: Precision) -> None:
    checkpoint = random_checkpoint("paper")
    images = noise(checkpoint.spec, 1)
    known = Reference(checkpoint).run(images)
    outputs = forward_of(checkpoint, precision, "cpu")(images)
    assert set(outputs) == {"probabilities", "fc7"}
    for name, value in outputs.items():
        assert value.dtype == np.float32
        assert relative_error(value, known[name]) < TOLERANCES[precision], name


def test_torch_is_timed_in_a_process_of_its_own_that_may_fail(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with peer_of("fp32", "cpu") as peer:
        assert peer is not None
        assert 0 < peer(1) < 60
    monkeypatch.setattr(runner_rates, "serve", os._exit)  # which does not take its arguments
    with peer_of("fp32", "cpu") as peer:
        assert peer is None
    assert "no torch beside it: its process has ended" in capfd.readouterr().err
    with peer_of("int8") as peer:
        assert peer is None


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Let commands succeed, and write what `export` would; return how they were called."""
    monkeypatch.chdir(tmp_path)
    calls: list[tuple[str, ...]] = []

    def run_command(*arguments: str, exit_code: int = 0) -> tuple[list[str], float]:
        calls.append((*arguments, f"exit {exit_code}"))
        Path("model.engine").write_bytes(bytes(100))
        Path("model.engine.json").write_text("{}", "utf-8")
        return [f'{{"report": {REPORT["report"]}}}'], 1.0

    monkeypatch.setattr(engines, "run_command", run_command)
    return calls


REPORT = {"report": "null"}


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("lost", [0, 9])
def test_an_engine_is_compared_timed_and_refused_when_damaged(
    built: list[tuple[str, ...]], settings: Settings, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    def opened(path: Path, batch: int) -> Runner:
        options = RunnerOptions(batch_size=batch, runtime="onnxruntime", outputs=LAYERS)
        return open_runner(build_file(bundled(), LAYERS, "fp32"), options)

    for name, value in {
        "_opened": opened,
        "_lost_mib": lambda runner: lost,
        "PROFILE": {"min": 1},
        "_upload": upload,
        "peer_of": fake_peer,
    }.items():
        monkeypatch.setattr(engines, name, value)
    monkeypatch.setattr(runner_rates, "TURN_S", 0.0)
    _, path = engines._built("--trt")
    if lost:
        with pytest.raises(Failed, match="1000 batches lost 9 MiB") as error:
            engines.checked(path, settings, "fp32", {"build_s": 1.0})
        assert error.value.figures["photographs"] == 5
        return
    figures = engines.checked(path, settings, "fp32", {"build_s": 1.0})
    assert figures["build_s"] == 1.0
    assert figures["logits_error_max"] < 1e-5
    assert figures["batch_1"]["images_per_s"] > 0
    assert [call[::2] for call in built[1:]] == [
        ("verify", "exit 0"),
        ("verify", f"exit {engines.DAMAGED}"),
    ]
    assert sum(a != b for a, b in zip(path.read_bytes(), damaged(path), strict=True)) == 1


def damaged(path: Path) -> bytes:
    return path.with_name("damaged.engine").read_bytes()


def test_a_leak_is_what_many_batches_take_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    free, runs = [100 * 2**20], [0]

    class Leaking(FakeRunner):
        def run(self, images: NDArray[np.uint8]) -> Any:
            runs[0] += 1
            free[0] -= 2**20 if runs[0] in (1, 40, 50) else 0
            return super().run(images)

    monkeypatch.setattr(engines, "_free_bytes", lambda: free[0])
    monkeypatch.setattr(engines, "NUM_BATCHES", 50)
    assert engines._lost_mib(Leaking(RunnerOptions(batch_size=1, outputs=("fc7",)))) == 2
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
    monkeypatch.setattr(engines, "current_gpu", lambda: gpu)
    monkeypatch.setattr(engines, "checked", lambda *_: {"outcome": "checked"})
    monkeypatch.setitem(REPORT, "report", '{"checks": []}' if verified else "null")
    made = Settings(scratch=Path())
    if outcome == "checked":
        assert engines.rtx(made, precision=precision) == {"outcome": "checked"}
    elif outcome == "failed":
        with pytest.raises(Failed, match="not verified"):
            engines.rtx(made, precision=precision)
    else:
        reason = "refused here: this GPU is 9.0" if outcome == "refused" else "fp16 only"
        with pytest.raises(Skipped, match=reason):
            engines.rtx(made, precision=precision)
    if target is None:
        assert built == []
        return
    words = built[0]
    assert words[:4] == ("export", "--rtx", "--precision", precision)
    assert ("--compute-capability" in words) == bool(target)
    assert not target or words[words.index("--compute-capability") + 1] == target
    assert (("verify", "model.engine", "exit 1") in built) == (outcome == "refused")
