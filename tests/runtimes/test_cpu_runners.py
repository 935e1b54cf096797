"""Runners: parity with the reference, and options that mean what they say or are an error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet_deploy.choices import FilePrecision, Runtime
from alexnet_deploy.errors import DeviceError, IncompatibleFileError, UsageError
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.reference import Reference
from alexnet_deploy.model.spec import PRESET_NAMES
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.factory import open_runner
from alexnet_deploy.runtimes.prepared import prepare
from alexnet_deploy.verification.comparison import TOLERANCES
from tests.support.networks import noise, random_checkpoint, relative_error
from tests.support.waiting import PATIENCE_S

RUNTIMES: tuple[Runtime, ...] = ("openvino", "onnxruntime")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_every_layer_equals_the_reference(preset: str, runtime: Runtime) -> None:
    checkpoint = random_checkpoint(preset)
    images = noise(checkpoint.spec, 2)
    expected = Reference(checkpoint, np.float64).run(images)
    options = RunnerOptions(runtime=runtime, batch_size=2, outputs=tuple(expected))
    with open_runner(build_model(checkpoint, ("probabilities",)), options) as runner:
        actual = runner.run(images)
    assert list(actual) == list(expected)
    for name, value in actual.items():
        assert value.dtype == np.float32
        assert relative_error(value, expected[name]) < 1e-5, name  # float32 rounding: 1e-6


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_what_comes_before_a_relu_is_not_fused_away(
    precision: FilePrecision, runtime: Runtime
) -> None:
    checkpoint = load_checkpoint(bundled_checkpoint())
    file = build_file(checkpoint, (), precision)
    images = noise(checkpoint.spec, 1)
    layers = tuple(checkpoint.spec.layer_shapes())
    usual = tuple(name for name in layers if not name.endswith("_pre"))
    runs = []
    for outputs in (("all",), usual):
        options = RunnerOptions(runtime=runtime, batch_size=1, outputs=outputs)
        if (precision, runtime) == ("bf16", "onnxruntime"):
            with pytest.raises(DeviceError, match="bf16"):
                open_runner(file, options)
            return
        with open_runner(file, options) as runner:
            runs.append(runner.run(images))
    (every, without), expected = runs, Reference(checkpoint).run(images)
    assert tuple(every) == layers
    for name, value in without.items():  # asking for more changes nothing
        np.testing.assert_array_equal(every[name], value)
    for name in layers:
        if name.endswith("_pre"):
            after = every[name.removesuffix("_pre")]
            np.testing.assert_array_equal(np.maximum(every[name], 0), after)
            below = [np.minimum(values[name], 0) for values in (every, expected)]
            assert below[1].any()
            assert relative_error(*below) < TOLERANCES[precision].relative, name


def test_a_dense_network_equals_the_reference() -> None:
    checkpoint = random_checkpoint("paper", factored=False)
    images = noise(checkpoint.spec, 1)
    expected = Reference(checkpoint).run(images)
    for runtime in RUNTIMES:
        options = RunnerOptions(runtime=runtime, batch_size=1, outputs=("logits",))
        with open_runner(build_model(checkpoint, ("logits",)), options) as runner:
            logits = runner.run(images)["logits"]
        assert relative_error(logits, expected["logits"].astype(np.float64)) < 1e-5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_photographs_result_does_not_depend_on_its_neighbours(runtime: Runtime) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    options = RunnerOptions(runtime=runtime, batch_size=4, outputs=("fc7",))
    images = noise(file.spec, 4)
    padded = images.copy()
    padded[1:] = 0
    with open_runner(file, options) as runner:
        alone, together = runner.run(padded)["fc7"][0], runner.run(images)["fc7"][0]
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_result_stays_as_it_is_when_the_engine_runs_again(runtime: Runtime) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    options = RunnerOptions(runtime=runtime, batch_size=1, outputs=("fc7",))
    with open_runner(file, options) as runner:
        first = runner.run(noise(file.spec, 1, seed=1))["fc7"]
        kept = first.copy()
        runner.run(noise(file.spec, 1, seed=2))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_runs_is_described(runtime: Runtime) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    options = RunnerOptions(runtime=runtime, batch_size=3, threads=1, outputs=("fc7",))
    with open_runner(file, options) as runner:
        assert runner.options.runtime == runtime
        assert runner.options.device == "cpu"
        for part in ("CPU", "fp32", "batch 3", "threads 1"):
            assert part in runner.description


def test_auto_takes_openvino_and_says_so() -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    with open_runner(file, RunnerOptions(batch_size=1)) as runner:
        assert runner.options.runtime == "openvino"
        assert runner.description.startswith("OpenVINO ")


def test_openvino_bf16_differs_from_fp32_within_its_rounding() -> None:
    checkpoint = random_checkpoint("paper")
    images = noise(checkpoint.spec, 1)
    expected = Reference(checkpoint).run(images)["fc7"].astype(np.float64)
    options = RunnerOptions(runtime="openvino", precision="bf16", batch_size=1, outputs=("fc7",))
    with open_runner(build_model(checkpoint, ("fc7",)), options) as runner:
        assert "bf16" in runner.description
        error = relative_error(runner.run(images)["fc7"], expected)
    if "computed in fp32" in runner.description:  # a CPU that cannot even emulate it
        assert error < 1e-4
    else:
        assert 1e-4 < error < 5e-2  # 8 bits of mantissa: 4e-3 a rounding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (RunnerOptions(device="cuda"), 'NVIDIA GPU.*device="cpu"'),
        (RunnerOptions(runtime="openvino", device="cuda"), 'device="cuda"'),
        (RunnerOptions(runtime="onnxruntime", precision="bf16"), 'precision="bf16".*openvino'),
    ],
)
def test_what_cannot_run_here_is_refused_with_a_way_out(
    options: RunnerOptions, message: str
) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    with pytest.raises(DeviceError, match=message):
        open_runner(file, options)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("outputs", [("fc9",), ("fc7", "fc7")])
def test_layers_that_do_not_exist_are_refused(runtime: Runtime, outputs: tuple[str, ...]) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    options = RunnerOptions(runtime=runtime, outputs=outputs)
    with pytest.raises(UsageError, match="layer"):
        open_runner(file, options)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_of_another_shape_or_type_is_refused(runtime: Runtime) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    options = RunnerOptions(runtime=runtime, batch_size=2, outputs=("fc7",))
    images = noise(file.spec, 2)
    with open_runner(file, options) as runner:
        for wrong in (images[:0], images[[0, 1, 0]], images[:, :223], images.astype(np.float32)):
            with pytest.raises(UsageError, match=r"the runner takes \(1..2, 224, 224, 3\) uint8"):
                runner.run(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["openvino", "onnxruntime"])
def test_a_missing_runtime_names_the_install_line(missing: str) -> None:
    """In a process of its own, where the import of one runtime fails."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
from alexnet_deploy.errors import MissingPackageError
try:
    import alexnet_deploy.runtimes.{missing}_runner
except MissingPackageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert "pip install 'alexnet-deploy[cpu]'" in done.stdout


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_runtime_leaves_an_identifier_of_its_user(runtime: Runtime, tmp_path: Path) -> None:
    """Both report home by default; what they would report with lies in the home folder."""
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("CI", None)  # OpenVINO's is silent in CI anyway
    subprocess.run(
        [sys.executable, "-c", f"import alexnet_deploy.runtimes.{runtime}_runner"],
        env=environment,
        check=True,
        timeout=PATIENCE_S,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"runtime": "tensorflow"}, {"precision": "fp8"}, {"device": "tpu"}, {"batch_size": 0}],
)
def test_options_that_do_not_exist_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RunnerOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_closing_twice_is_harmless(runtime: Runtime) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    runner = open_runner(file, RunnerOptions(runtime=runtime, batch_size=1, outputs=("fc7",)))
    runner.close()
    runner.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_graph_that_no_runtime_knows_is_an_incompatible_file(runtime: Runtime) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    file.graph.graph.node[3].op_type = "Convolve"
    with pytest.raises(IncompatibleFileError, match="export the checkpoint again"):
        open_runner(file, RunnerOptions(runtime=runtime, batch_size=1, outputs=("fc7",)))


def test_openvino_is_told_the_precision() -> None:
    """Without the hint it takes bf16 wherever the CPU has it, which no error would show."""
    from alexnet_deploy.runtimes.openvino_runner import OpenVinoRunner

    network = prepare(build_model(random_checkpoint("paper"), ("fc7",)), "openvino", "cpu")
    for precision, hint in (("fp32", "float32"), ("bf16", "bfloat16")):
        options = RunnerOptions(batch_size=1, precision=precision, outputs=("fc7",))  # type: ignore[arg-type]
        with OpenVinoRunner(network, options) as runner:
            is_said = "computed in fp32" in runner.description
            assert is_said or hint in runner.inference_precision
            assert not is_said or ("float32" in runner.inference_precision and hint == "bfloat16")
