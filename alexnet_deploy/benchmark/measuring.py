"""Measure ways to run a model on photographs of a disk, in turns.

N photographs, H/W the network's input size in px. Every figure is of whole passes over all
photographs, whose files are in the page cache by then.
"""

import dataclasses
import os
import statistics
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from alexnet_deploy.benchmark.agreement import Agreement, Layers
from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.benchmark.reading import BATCH, Readable, read_all
from alexnet_deploy.benchmark.results import Benchmark, Row, Seconds, row
from alexnet_deploy.benchmark.settings import LAYER, Choices, Setting, networks
from alexnet_deploy.choices import Precision
from alexnet_deploy.errors import AlexNetDeployError, DeviceError
from alexnet_deploy.export import opening
from alexnet_deploy.inference.embeddings import EmbedOptions, embed, files_of
from alexnet_deploy.inference.failures import at_least_one
from alexnet_deploy.inference.npy_files import write_npy
from alexnet_deploy.inference.partial_rows import open_partial_rows
from alexnet_deploy.inference.provenance import provenance_of
from alexnet_deploy.photographs.pipeline import batches, crop_loader, default_threads
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.timing import CLOCK, Clock, Spread, Took, in_turns, timed
from alexnet_deploy.weights.names import ModelSource

_PAUSE_S = 0.05  # ONNX Runtime's threads spin for a while
_SHARE_OF_CORES = 0.75

NewProcess = Callable[[Setting, Path, Path], Sequence[str]]
"""Returns the command that embeds, given the setting, a file of paths that end with NULs, and the
file to write."""


def bench(
    source: ModelSource,
    photographs: Iterable[Path],
    choices: Choices,
    new_process: NewProcess,
    *,
    clock: Clock = CLOCK,
    notify: Callable[[str], None] = lambda _: None,
    on_photograph: Callable[[Path, str | None], None] = lambda path, error: None,
) -> Benchmark:
    """Measure each way to embed photographs that `choices` and this machine allow.

    Args:
        source: the model.
        photographs: files.
        choices: what to measure.
        new_process: see `NewProcess`.
        clock: what times it.
        notify: called with lines for a person about what is going on.
        on_photograph: called for each photograph once it was read, with the reason if it was not.

    Raises:
        NoPhotographsError: there are none.
        TooManyFailuresError: none could be read.
        DeviceError: what was chosen runs elsewhere than was asked, or nowhere here.
        AlexNetDeployError: as `open_runner_of`, or a new process failed.
    """
    some = _evenly(list(at_least_one(photographs)), choices.num_photographs)
    remarks: list[str] = []
    chosen = networks(source, choices, remarks.append)
    with ExitStack() as stack:
        runners = [stack.enter_context(_opened(source, one, notify)) for one in chosen]
        threads = choices.threads or default_threads()
        read = read_all(some, runners[0].spec, choices.decodes, threads, on_photograph)
        ways = {
            Setting(options=runner.options, decode=decode): runner
            for decode in read.crops
            for runner in runners
        }
        agreements = _agreements(source, ways, read, runners[0].spec.has_head)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pieces = _pieces(ways, read, threads, scratch)
        in_turns(pieces, 1)  # to warm up
        pieces |= _processes(ways, read, new_process, scratch)
        timers = {name: partial(timed, work, clock) for name, work in pieces.items()}
        num = choices.num_rounds
        took = in_turns(timers, num, lambda n: notify(f"round {n} of {num}"), pause_s=_PAUSE_S)
    return Benchmark(
        machine=Machine.here(),
        model=str(source),
        identity=runners[0].identity,
        num_photographs=len(read.paths),
        num_failed=read.num_failed,
        median_size=read.median_size,
        median_bytes=read.median_bytes,
        num_rounds=num,
        writing=Spread.of(len(read.paths) / each.wall_s for each in took["writing"]),
        rows=_rows(ways, len(read.paths), took, agreements),
        remarks=(*remarks, *_others(runners[0], took["network 0"], threads)),
    )


def _others(runner: Runner, network: Sequence[Took], threads: int) -> Iterator[str]:
    """Yield a remark if a network on the CPU, which leaves no core idle, did not get them all."""
    cores = statistics.median(each.processor_s / each.wall_s for each in network)
    if runner.options.device == "cpu" and cores < _SHARE_OF_CORES * threads:
        yield (
            f"the network had {cores:.1f} of {threads} cores: other programs were running, or it "
            "cannot use as many"
        )


def _evenly(paths: Sequence[Path], most: int) -> list[Path]:
    count = min(len(paths), most)
    return [paths[i * len(paths) // count] for i in range(count)]


def _rows(
    ways: Mapping[Setting, Runner],
    num_photographs: int,
    took: Mapping[str, Sequence[Took]],
    agreements: Mapping[Setting, Agreement | None],
) -> tuple[Row, ...]:
    """Return a row for each way, from what its pieces took."""
    seconds = [_seconds(number, way, took) for number, way in enumerate(ways)]
    return tuple(
        row(way, runner.description, num_photographs, own, seconds[0], agreements[way])
        for (way, runner), own in zip(ways.items(), seconds, strict=True)
    )


def _opened(source: ModelSource, options: RunnerOptions, notify: Callable[[str], None]) -> Runner:
    """Open a runner, and make sure that it runs where it was asked to."""
    runner = opening.open_runner_of(source, options, notify=notify)
    asked, got = options.device, runner.options.device
    if asked not in ("auto", got):
        runner.close()
        raise DeviceError(
            f"{runner.description}: runs on {got}, and was to be measured on {asked}; see what "
            "works here with: alexnet-deploy doctor"
        )
    notify(runner.description)
    return runner


def _agreements(
    source: ModelSource, ways: Iterable[Setting], read: Readable, has_head: bool
) -> dict[Setting, Agreement | None]:
    """Compare every way's results with those of the first in fp32 and exact decoding."""
    layers = (LAYER, "logits") if has_head else (LAYER,)
    # Of ways that differ in nothing but the batch size, one is enough.
    keys = {
        way: Setting(
            options=dataclasses.replace(way.options, outputs=layers, batch_size=BATCH),
            decode=way.decode,
        )
        for way in ways
    }
    exact = (key for key in keys.values() if key.decode == EXACT)
    usual = next((key for key in exact if key.options.precision == "fp32"), None)
    found: dict[Setting, Agreement | None] = dict.fromkeys(keys.values())
    if usual is not None and len(found) > 1:
        expected = _outputs(source, usual, read)
        for key in found.keys() - {usual}:
            outputs = _outputs(source, key, read)
            found[key] = Agreement.of(outputs, expected, _judged_as(key))
    return {way: found[key] for way, key in keys.items()}


def _judged_as(way: Setting) -> Precision:
    """Return the precision whose tolerance holds: other pixels may do what bf16 may."""
    precision = way.options.precision
    return "bf16" if way.decode != EXACT and precision in ("fp32", "fp16") else precision


def _outputs(source: ModelSource, setting: Setting, read: Readable) -> Layers:
    """Return the outputs of all photographs."""
    crops = read.crops[setting.decode]
    with opening.open_runner_of(source, setting.options) as runner:
        parts = [runner.run(crops[i : i + BATCH]) for i in range(0, len(crops), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pieces(
    ways: Mapping[Setting, Runner],
    read: Readable,
    threads: int,
    scratch: Path,
) -> dict[str, Callable[[], object]]:
    """Return every piece of work of this process, by name."""
    usual = next(iter(ways.values()))
    spec = usual.spec

    def decode(how: Decode) -> None:
        stream = batches(
            read.paths,
            crop_loader(spec, how),
            input_size=spec.input_size,
            batch_size=BATCH,
            threads=threads,
        )
        deque(stream, maxlen=0)

    def write() -> None:
        made = dataclasses.replace(provenance_of(usual, (LAYER,)), num_rows=len(read.paths))
        with open_partial_rows(output, made) as rows:
            for path in read.paths:
                rows.add(path, None, [vector])
            write_npy(files_of(output, (LAYER,)), made, rows.groups())

    def compute(way: Setting, runner: Runner) -> None:
        crops, step = read.crops[way.decode], way.options.batch_size
        for start in range(0, len(crops), step):
            runner.run(crops[start : start + step])

    def whole(way: Setting, runner: Runner) -> None:
        options = EmbedOptions(layers=(LAYER,), decode=way.decode)
        embed(runner, read.paths, output, options, threads=threads)

    output = scratch / f"{LAYER}.npy"
    vector = np.ones(spec.layer_shapes()[LAYER], np.float32)
    pieces: dict[str, Callable[[], object]] = {"writing": write}
    for how in read.crops:
        pieces[f"decoding {how}"] = partial(decode, how)
    for number, (way, runner) in enumerate(ways.items()):
        pieces[f"network {number}"] = partial(compute, way, runner)
        pieces[f"whole {number}"] = partial(whole, way, runner)
    return pieces


def _processes(
    ways: Iterable[Setting], read: Readable, new_process: NewProcess, scratch: Path
) -> dict[str, Callable[[], object]]:
    """Return the same work, each way in a process of its own."""
    listed = scratch / "photographs"
    listed.write_bytes(b"".join(os.fsencode(path.absolute()) + b"\0" for path in read.paths))

    def run(command: Sequence[str]) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise AlexNetDeployError(
                f"a new process that embeds the same photographs ended with {done.returncode} "
                f"({reason[:300]}); try it by hand: alexnet-deploy embed"
            )

    output = scratch / "process.npy"
    return {
        f"process {number}": partial(run, new_process(way, listed, output))
        for number, way in enumerate(ways)
    }


def _seconds(number: int, way: Setting, took: Mapping[str, Sequence[Took]]) -> Seconds:
    def wall(name: str) -> list[float]:
        return [each.wall_s for each in took[name]]

    return Seconds(
        decoding=wall(f"decoding {way.decode}"),
        network=wall(f"network {number}"),
        whole=wall(f"whole {number}"),
        process=wall(f"process {number}"),
        processor=[each.processor_s for each in took[f"whole {number}"]],
    )
