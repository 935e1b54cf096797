"""Measure ways to run a model on photographs of a disk, in turns.

N photographs, H/W the network's input size in px. Every figure is of whole passes over all
photographs, whose files are in the page cache by then.
"""

import dataclasses
import os
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.benchmark.reading import BATCH, Readable, read_all
from alexnet_deploy.benchmark.results import Benchmark, Row, Seconds
from alexnet_deploy.benchmark.settings import LAYER, Choices, Setting, networks
from alexnet_deploy.errors import AlexNetDeployError, DeviceError, Message
from alexnet_deploy.export import opening
from alexnet_deploy.inference.embeddings import EmbedOptions, embed, files_of
from alexnet_deploy.inference.failures import at_least_one
from alexnet_deploy.inference.npy_files import write_npy
from alexnet_deploy.inference.partial_rows import open_partial_rows
from alexnet_deploy.inference.provenance import provenance_of
from alexnet_deploy.inference.run import calls_at_once
from alexnet_deploy.photographs.pipeline import batches, crop_loader, default_threads
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import Runner, RunnerOptions
from alexnet_deploy.runtimes.engine_file import ENGINE_SUFFIXES
from alexnet_deploy.timing import Spread, in_turns, seconds_of
from alexnet_deploy.verification.agreement import Agreement, Layers
from alexnet_deploy.weights.names import ModelSource

_PAUSE_S = 0.05  # ONNX Runtime's threads spin for a while

NewProcess = Callable[[Setting, Path, Path], Sequence[str]]
"""Returns the command that embeds, given the setting, a file of paths that end with NULs, and the
file to write."""
_Pieces = dict[str, Callable[[], object]]


def bench(
    source: ModelSource,
    photographs: Iterable[Path],
    choices: Choices,
    new_process: NewProcess,
    *,
    notify: Callable[[str], None] = lambda _: None,
    on_photograph: Callable[[Path, str | None], None] = lambda path, error: None,
) -> Benchmark:
    """Measure each way to embed photographs that `choices` and this machine allow.

    Args:
        source: the model.
        photographs: files.
        choices: what to measure.
        new_process: see `NewProcess`.
        notify: called with lines for a person about what is going on.
        on_photograph: called for each photograph once it was read, with the reason if it was not.

    Raises:
        NoPhotographsError: there are none.
        TooManyFailuresError: none could be read.
        DeviceError: what was chosen runs elsewhere than was asked, or nowhere here.
        AlexNetDeployError: as `open_runner_of`, or a new process failed.
    """
    some = _evenly(list(at_least_one(photographs)), choices.num_photographs)
    remarks: list[Message] = []
    chosen = networks(source, choices, remarks.append)
    with ExitStack() as stack:
        runners = [stack.enter_context(_opened(source, one, notify)) for one in chosen]
        threads = choices.threads or default_threads()
        read = read_all(some, runners[0].spec, choices.scales, threads, on_photograph)
        ways = {
            Setting(options=runner.options, decode=decode): runner
            for decode in read.crops
            for runner in runners
        }
        agreements = _agreements(source, ways, read)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pieces = _shared(runners[0], read, threads, scratch)
        pieces |= _computing(ways, read, threads, scratch)
        pieces |= _processes(ways, read, new_process, scratch)
        timers = {name: partial(seconds_of, work) for name, work in pieces.items()}
        in_turns(timers, 1)  # to warm up
        num = choices.num_rounds
        took = in_turns(timers, num, lambda n: notify(f"round {n} of {num}"), pause_s=_PAUSE_S)
    return Benchmark(
        machine=Machine.here(),
        model=str(source),
        identity=runners[0].identity,
        num_photographs=len(read.paths),
        num_failed=read.num_failed,
        median_size=read.median_size,
        num_rounds=num,
        writing=Spread.of(len(read.paths) / each for each in took["writing"]),
        rows=_rows(ways, len(read.paths), took, agreements),
        remarks=tuple(remarks),
    )


def _evenly(paths: Sequence[Path], most: int) -> list[Path]:
    count = min(len(paths), most)
    return [paths[i * len(paths) // count] for i in range(count)]


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
    return runner


def _agreements(
    source: ModelSource, ways: Mapping[Setting, Runner], read: Readable
) -> dict[Setting, Agreement | None]:
    """Compare every way's results with those of the first in fp32 and exact decoding."""
    spec = next(iter(ways.values())).spec
    is_engine = isinstance(source, Path) and source.suffix in ENGINE_SUFFIXES  # has few outputs
    layers = (LAYER, "logits") if spec.has_head and not is_engine else (LAYER,)
    # Of ways that differ in nothing but the batch size, one is enough.
    keys = {
        way: dataclasses.replace(
            way, options=dataclasses.replace(way.options, outputs=layers, batch_size=BATCH)
        )
        for way in ways
    }
    exact = (key for key in keys.values() if key.decode == EXACT)
    usual = next((key for key in exact if key.options.precision == "fp32"), None)
    found: dict[Setting, Agreement | None] = dict.fromkeys(keys.values())
    if usual is not None and len(found) > 1:
        expected = _outputs(source, usual, read)
        for key in found.keys() - {usual}:
            # Other pixels may do what bf16 may.
            own = key.options.precision
            judged_as = "bf16" if key.decode != EXACT and own in ("fp32", "fp16") else own
            found[key] = Agreement.of(_outputs(source, key, read), expected, judged_as)
    return {way: found[key] for way, key in keys.items()}


def _outputs(source: ModelSource, setting: Setting, read: Readable) -> Layers:
    """Return the outputs of all photographs."""
    crops = read.crops[setting.decode]
    with opening.open_runner_of(source, setting.options) as runner:
        parts = [runner.run(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    return {
        name: np.concatenate([part[name] for part in parts]) for name in setting.options.outputs
    }


def _shared(runner: Runner, read: Readable, threads: int, scratch: Path) -> _Pieces:
    """Return the work that is the same for all networks: decoding, and writing."""
    output = scratch / "written.npy"
    vector = np.ones(runner.spec.layer_shapes()[LAYER], np.float32)

    def decode(how: Decode) -> None:
        load, size = crop_loader(runner.spec, how), runner.spec.input_size
        stream = batches(read.paths, load, input_size=size, batch_size=BATCH, threads=threads)
        deque(stream, maxlen=0)

    def write() -> None:
        made = dataclasses.replace(provenance_of(runner, (LAYER,)), num_rows=len(read.paths))
        with open_partial_rows(output, made) as rows:
            for path in read.paths:
                rows.add(path, None, [vector])
            write_npy(files_of(output, (LAYER,)), made, rows.groups())

    return {"writing": write, **{f"decoding {how}": partial(decode, how) for how in read.crops}}


def _computing(
    ways: Mapping[Setting, Runner], read: Readable, threads: int, scratch: Path
) -> _Pieces:
    """Return what each way does, the network alone and the whole."""

    def compute(way: Setting, runner: Runner) -> None:
        crops, step = read.crops[way.decode], way.options.batch_size
        parts = [crops[start : start + step] for start in range(0, len(crops), step)]
        calls = calls_at_once(runner)  # as many as the whole has, which it is to bound
        with ThreadPoolExecutor(calls, thread_name_prefix="network") as threads:
            each: Callable[..., Iterable[object]] = threads.map if calls > 1 else map
            deque(each(runner.run, parts), maxlen=0)

    def whole(way: Setting, runner: Runner) -> None:
        options = EmbedOptions(layers=(LAYER,), decode=way.decode)
        embed(runner, read.paths, scratch / "whole.npy", options, threads=threads)

    return {
        f"{name} {way}": partial(work, way, runner)
        for way, runner in ways.items()
        for name, work in (("network", compute), ("whole", whole))
    }


def _processes(
    ways: Iterable[Setting], read: Readable, new_process: NewProcess, scratch: Path
) -> _Pieces:
    """Return the same work, each way in a process of its own."""
    listed = scratch / "photographs"
    listed.write_bytes(b"".join(os.fsencode(path.absolute()) + b"\0" for path in read.paths))

    def run(way: Setting) -> None:
        command = new_process(way, listed, scratch / "process.npy")
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise AlexNetDeployError(
                f"a new process that embeds the same photographs ended with {done.returncode} "
                f"({reason[:300]}); try it by hand: alexnet-deploy embed"
            )

    return {f"process {way}": partial(run, way) for way in ways}


def _rows(
    ways: Mapping[Setting, Runner],
    num_photographs: int,
    took: Seconds,
    agreements: Mapping[Setting, Agreement | None],
) -> tuple[Row, ...]:
    """Return a row for each way, from what all pieces took."""
    seconds = [
        {name: took[f"{name} {way}"] for name in ("network", "whole", "process")}
        | {"decoding": took[f"decoding {way.decode}"]}
        for way in ways
    ]
    return tuple(
        Row.of(way, runner.description, num_photographs, own, seconds[0], agreements[way])
        for (way, runner), own in zip(ways.items(), seconds, strict=True)
    )
