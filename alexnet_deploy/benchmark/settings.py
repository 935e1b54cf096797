"""Which ways to run a model a machine has: runtimes, devices, precisions, batch sizes, decoding."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from alexnet_deploy import arguments, installed
from alexnet_deploy.choices import Device, Precision, Runtime, Scale
from alexnet_deploy.errors import AlexNetDeployError, Argument, DeviceError, Message, UsageError
from alexnet_deploy.export.opening import load_model
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.capabilities import (
    Combination,
    file_precision,
    run_precision,
    usual_combinations,
)
from alexnet_deploy.runtimes.engine_file import ENGINE_SUFFIXES
from alexnet_deploy.runtimes.factory import resolve
from alexnet_deploy.runtimes.gpu_driver import gpus
from alexnet_deploy.runtimes.onnxruntime_distributions import is_installed_for_gpu
from alexnet_deploy.weights.names import ModelSource

LAYER = "fc7"
MAX_PHOTOGRAPHS = 4000
"""Their crops take 600 MB for each way to decode, twice that while they are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What to measure; what is empty or "auto" is whatever this machine has.

    Attributes:
        runtimes: libraries.
        device: "cpu" or "cuda"; "auto" for both.
        precisions: arithmetic; none for fp32, and what is faster than it here and needs nothing
            else: bf16 where the processor multiplies it, fp16 on a GPU.
        batch_sizes: photographs per call of the network.
        scales: how JPEGs are decoded; none for exact, and scaled too where most photographs are so
            large that it can make a difference.
        threads: CPU threads, for the network and for decoding; None for all cores.
        num_photographs: of more, as many at equal distances; up to `MAX_PHOTOGRAPHS`.
        num_rounds: all pieces of work take turns in each.

    Raises:
        ArgumentError: one of the two numbers is out of its range.
    """

    runtimes: tuple[Runtime, ...] = ()
    device: Device = "auto"
    precisions: tuple[Precision, ...] = ()
    batch_sizes: tuple[int, ...] = (32,)
    scales: tuple[Scale, ...] = ()
    threads: int | None = None
    num_photographs: int = 100
    num_rounds: int = 5

    def __post_init__(self) -> None:
        """Check the numbers."""
        arguments.count("num_photographs", self.num_photographs, MAX_PHOTOGRAPHS)
        arguments.count("num_rounds", self.num_rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a model on photographs."""

    options: RunnerOptions
    decode: Decode = EXACT

    def __str__(self) -> str:
        """Return it in a few words, no two the same."""
        own = self.options
        network = f"{own.runtime} {own.device} {own.precision}, batch {own.batch_size}"
        return f"{network}, {self.decode.scale}"

    @property
    def is_on_one_cpu(self) -> bool:
        """Whether decoding and the network share a CPU's cores, and a GPU does neither."""
        return self.options.device == "cpu" and self.decode.scale != "gpu"


def networks(
    source: ModelSource, choices: Choices, notify: Callable[[Message], None]
) -> tuple[RunnerOptions, ...]:
    """Return how to run a model, first what a command takes unless it is told otherwise.

    Args:
        source: an engine runs in one way, an `.onnx` file in the precisions that it allows.
        choices: all combinations of them that the machine has.
        notify: called with one line for each precision that is left out.

    Raises:
        DeviceError: no runtime here computes in a precision that was chosen, or on the device.
        UsageError: the file does not allow a precision that was chosen.
    """
    usual = RunnerOptions().batch_size
    batch_sizes = sorted(set(choices.batch_sizes), key=lambda size: (size != usual, size))
    found = product(_combinations(source, choices, notify), batch_sizes)
    return tuple(
        RunnerOptions(
            runtime=runtime,
            device=device,
            precision=precision,
            batch_size=batch_size,
            threads=choices.threads,
            outputs=(LAYER,),
        )
        for (runtime, device, precision), batch_size in found
    )


def _combinations(
    source: ModelSource, choices: Choices, notify: Callable[[Message], None]
) -> list[Combination]:
    suffix = source.suffix if isinstance(source, Path) else ""
    if suffix in ENGINE_SUFFIXES:
        runtimes, precisions = choices.runtimes or ("auto",), choices.precisions or ("auto",)
        return list(product(runtimes, (choices.device,), precisions))
    own = load_model(source).precision if isinstance(source, Path) and suffix == ".onnx" else None
    runtime = choices.runtimes[0] if len(choices.runtimes) == 1 else "auto"
    usual = resolve(RunnerOptions(runtime=runtime, device=choices.device), own or "fp32")
    usual_ones = usual_combinations(for_gpu=is_installed_for_gpu())
    here = [one for one in usual_ones if _may_work(one, choices)]
    places = dict.fromkeys(one[:2] for one in here) or ((usual.runtime, usual.device),)
    wanted = [(*place, precision) for precision in choices.precisions for place in places]
    if not wanted and own in (None, "fp32"):
        wanted = here
    found: list[Combination] = []
    refused: dict[Precision, AlexNetDeployError] = {}
    for one in wanted or [(*place, own or "fp32") for place in places]:
        try:
            if own is None:
                file_precision(*one)
            else:
                run_precision(*one, own, source.name)
            if own != "bf16":  # else there is no choice
                _check_native(one)
            found.append(one)
        except (DeviceError, UsageError) as error:
            refused.setdefault(one[2], error)
    if not found:
        raise next(iter(refused.values()))
    for precision in refused.keys() - {one[2] for one in found}:
        notify(Message("left out: ", refused[precision].message))
    first = (usual.runtime, usual.device, own or "fp32")
    return sorted(found, key=lambda one: one != first)  # stable


def _may_work(combination: Combination, choices: Choices) -> bool:
    """Return whether a runtime and a device are chosen, or else are here."""
    runtime, device, _ = combination
    return (
        choices.device in ("auto", device)
        and (runtime in choices.runtimes if choices.runtimes else installed.has_module(runtime))
        and (choices.device == "cuda" or device == "cpu" or bool(gpus()))
    )


def _check_native(combination: Combination) -> None:
    """Refuse what would be computed in float32, or slower than that, under another name."""
    if combination == ("openvino", "cpu", "bf16"):
        from alexnet_deploy.runtimes.openvino_runner import native_bf16

        if not native_bf16():
            raise DeviceError(
                Argument("precision", "bf16"),
                ": this processor has no instructions for it, fp32 is faster",
            )
