"""The whole table of runtimes, devices, precisions and files; and that every way out is one."""

import dataclasses
import itertools
import re

import pytest

from alexnet_deploy.choices import (
    FILE_PRECISIONS,
    PRECISIONS,
    RUNTIMES,
    Device,
    FilePrecision,
    Precision,
    Runtime,
)
from alexnet_deploy.errors import AlexNetDeployError, DeviceError, MissingPackageError, UsageError
from alexnet_deploy.runtimes import factory
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.capabilities import (
    computes,
    file_precision,
    resolve_runtime,
    run_precision,
)
from alexnet_deploy.runtimes.factory import resolve
from alexnet_deploy.runtimes.gpu_driver import Gpu

PLACES: tuple[tuple[Device, Runtime], ...] = (
    ("cpu", "openvino"),
    ("cpu", "onnxruntime"),
    ("cuda", "onnxruntime"),
)
# What runs: device, runtime, the run's precision, the file's. bf16 on a CPU is arithmetic of the
# run, from an fp32 file; every other precision is in the graph.
RUNS = {
    *(("cpu", "openvino", precision, precision) for precision in FILE_PRECISIONS),
    ("cpu", "openvino", "bf16", "fp32"),
    *(("cpu", "onnxruntime", precision, precision) for precision in ("fp32", "fp16", "int8")),
    *(("cuda", "onnxruntime", precision, precision) for precision in ("fp32", "fp16")),
}
ASKED = tuple(precision for precision in PRECISIONS if precision != "auto")


@pytest.mark.parametrize(("device", "runtime"), PLACES)
@pytest.mark.parametrize("asked", PRECISIONS)
@pytest.mark.parametrize("file", FILE_PRECISIONS)
def test_a_file_runs_as_the_table_says_or_is_refused_with_a_way_out_that_works(
    monkeypatch: pytest.MonkeyPatch,
    device: Device,
    runtime: Runtime,
    asked: Precision,
    file: FilePrecision,
) -> None:
    install(monkeypatch, "openvino", "onnxruntime")
    wanted = file if asked == "auto" else asked
    if (device, runtime, wanted, file) in RUNS:
        assert run_precision(runtime, device, asked, file, "m.onnx") == wanted
        return
    with pytest.raises((DeviceError, UsageError)) as caught:
        run_precision(runtime, device, asked, file, "m.onnx")
    message = str(caught.value)
    assert f'precision="{asked}"' in message or message.startswith(f"m.onnx: is {file}, and ")
    # Of several ways out each has to work by itself.
    first, *others = message.rpartition("; ")[2].split(", or ")
    found = follow(first, device, runtime, asked)
    assert run_precision(*found, file, "m.onnx") == (file if found[2] == "auto" else wanted)
    for other in others:
        exported = re.fullmatch(r'export the checkpoint with precision="(\w+)"', other)
        assert exported
        assert run_precision(runtime, device, asked, exported[1], "m.onnx") == asked  # type: ignore[arg-type]


def follow(
    advice: str, device: Device, runtime: Runtime, asked: Precision
) -> tuple[Runtime, Device, Precision]:
    """Do what a message says; it must say something, and nothing else."""
    words = re.sub(r"^(leave precision out)?( and )?(use)?", "", advice)
    assert set(re.findall(r"(\w+)=", words)) <= {"device", "runtime"}
    assert re.fullmatch(r'( \w+="\w+")*', words), advice
    assert advice != words
    given = dict(re.findall(r'(\w+)="(\w+)"', words))
    assert given or "leave precision out" in advice
    asked = "auto" if "leave precision out" in advice else asked
    return given.get("runtime", runtime), given.get("device", device), asked


@pytest.mark.parametrize(("device", "runtime"), PLACES)
@pytest.mark.parametrize("asked", ASKED)
def test_a_checkpoint_is_exported_to_a_file_that_then_runs(
    device: Device, runtime: Runtime, asked: Precision
) -> None:
    if not computes(runtime, device, asked):
        with pytest.raises(DeviceError, match=rf'^precision="{asked}": ') as caught:
            file_precision(runtime, device, asked)
        advice = str(caught.value).rpartition("; ")[2]
        runtime, device, unchanged = follow(advice, device, runtime, asked)
        assert unchanged == asked
    file = file_precision(runtime, device, asked)
    assert run_precision(runtime, device, asked, file, "m.onnx") == asked


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_without_openvino_a_bf16_file_is_not_sent_to_it(
    monkeypatch: pytest.MonkeyPatch, device: Device, asked: Precision
) -> None:
    install(monkeypatch, "onnxruntime")
    with pytest.raises(
        DeviceError, match="for TensorRT: verify or run it where OpenVINO"
    ) as caught:
        run_precision("onnxruntime", device, asked, "bf16", "m.onnx")
    assert str(caught.value).startswith(
        f"m.onnx: is bf16, and ONNX Runtime has no bf16 on {device};"
    )
    assert 'runtime="openvino"' not in str(caught.value)


def test_bf16_on_a_cpu_needs_no_file_of_its_own() -> None:
    assert file_precision("openvino", "cpu", "bf16") == "fp32"


def test_the_table_of_what_is_computed_is_that_of_what_runs() -> None:
    for (device, runtime), asked in itertools.product(PLACES, ASKED):
        runs = any(run[:3] == (device, runtime, asked) for run in RUNS)
        assert computes(runtime, device, asked) == runs
    assert not computes("openvino", "cuda", "fp32")
    assert not computes("tensorrt", "cuda", "fp32"), "an engine says itself what it computes in"


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let only these be installed."""
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda package: package in packages)


@pytest.mark.parametrize(
    ("installed", "device", "expected"),
    [
        (("openvino", "onnxruntime"), "cpu", "openvino"),
        (("onnxruntime",), "cpu", "onnxruntime"),
        (("openvino", "onnxruntime"), "cuda", "onnxruntime"),
    ],
)
def test_auto_is_the_fastest_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], device: Device, expected: str
) -> None:
    install(monkeypatch, *installed)
    assert resolve_runtime(RunnerOptions(), device) == expected


@pytest.mark.parametrize(("device", "extra"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_without_any_runtime_the_install_line_is_that_of_the_device(
    monkeypatch: pytest.MonkeyPatch, device: Device, extra: str
) -> None:
    install(monkeypatch)
    with pytest.raises(MissingPackageError, match=rf"'alexnet-deploy\[{extra}\]'$"):
        resolve_runtime(RunnerOptions(), device)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "auto"])
def test_a_runtime_runs_where_it_can_and_is_refused_with_those_that_do(
    runtime: Runtime, device: Device
) -> None:
    options = RunnerOptions(runtime=runtime)
    if (device, runtime) in PLACES:
        assert resolve_runtime(options, device) == runtime
        return
    with pytest.raises(DeviceError, match=f'^runtime="{runtime}"') as caught:
        resolve_runtime(options, device)
    names = str(caught.value).rpartition("use runtime=")[2].strip('"').split(" or ")
    assert names
    for name in names:
        instead = dataclasses.replace(options, runtime=name)  # type: ignore[arg-type]
        assert resolve_runtime(instead, device) == name


@pytest.mark.parametrize(("runtime", "flag"), [("tensorrt", "--trt"), ("tensorrt-rtx", "--rtx")])
def test_what_runs_engines_only_says_so_and_how_to_build_one(runtime: Runtime, flag: str) -> None:
    with pytest.raises(DeviceError, match=rf"runs \.engine files.*export CKPT {flag}, or use"):
        resolve_runtime(RunnerOptions(runtime=runtime), "cuda")


GPU = Gpu(name="NVIDIA Pretence", compute_capability="9.0", cuda_version="13.0")


@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("for_gpu", [True, False])
@pytest.mark.parametrize("runtime", ["auto", "openvino", "onnxruntime"])
def test_auto_is_the_gpu_where_one_can_be_used_for_this_precision_and_else_the_cpu(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, for_gpu: bool, runtime: Runtime
) -> None:
    install(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(factory, "gpus", lambda: (GPU,) if has_gpu else ())
    monkeypatch.setattr(factory, "is_installed_for_gpu", lambda: for_gpu)
    for asked, own in itertools.product(PRECISIONS, FILE_PRECISIONS):
        options = resolve(RunnerOptions(runtime=runtime, precision=asked), own)
        precision = own if asked == "auto" else asked
        on_gpu = has_gpu and for_gpu and runtime != "openvino" and precision in ("fp32", "fp16")
        assert options.device == ("cuda" if on_gpu else "cpu"), (asked, own)
        assert (options.device, options.runtime) in PLACES
        assert runtime in ("auto", options.runtime)
        assert options.precision == asked


@pytest.mark.parametrize("own", FILE_PRECISIONS)
def test_every_file_runs_with_nothing_but_defaults_on_any_machine(
    monkeypatch: pytest.MonkeyPatch, own: FilePrecision
) -> None:
    for has_gpu in (True, False):
        found = (GPU,) if has_gpu else ()
        monkeypatch.setattr(factory, "gpus", lambda found=found: found)
        monkeypatch.setattr(factory, "is_installed_for_gpu", lambda: True)
        options = resolve(RunnerOptions(), own)
        assert run_precision(options.runtime, options.device, "auto", own, "m.onnx") == own


def test_a_device_that_was_asked_for_is_not_replaced() -> None:
    for device in ("cpu", "cuda"):
        assert resolve(RunnerOptions(device=device)).device == device
    with pytest.raises(AlexNetDeployError, match='runtime="openvino" device="cuda"'):
        resolve(RunnerOptions(device="cuda", runtime="openvino"))
