"""Start what changes an index in processes of their own, and kill them at a chosen moment."""

import dataclasses
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from alexnet_deploy.choices import Ann

Task: TypeAlias = Literal["index", "import", "duplicates", "export"]
STEPS = (
    *("creation", "append", "sync", "insert", "commit", "prune", "compress", "removal", "coder"),
    *("import", "migration", "hash", "export"),
)
EXPORTED = "exported"
"""The folder in an index into which it is exported."""
_CHILD = Path(__file__).with_name("killed_child.py")
_PAUSE_S = 0.02  # between two searches: the run needs the processor, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a process is to do.

    Attributes:
        directory: of the index.
        segment_bytes: for an index that does not exist yet.
        task: "index" for `bring_up_to_date`, "import" for `import_files`, "duplicates" for
            `find_duplicates`, which fills in the perceptual hashes, "export" for `export_files`.
        folder: of the photographs, or of the files of vectors to import.
        prune: remove what is gone, and compact.
        ann: "compressed" to compress the vectors, or the bits of codes to make as well, or the path
            of a coder that makes them, or "exact" to remove what is compressed.
        is_fake: with `ColourRunner` in place of the network.
        batch_size: None for the default; so many rows are imported, hashed and exported at a time,
            too.
    """

    directory: str
    segment_bytes: int
    task: Task = "index"
    folder: str = ""
    prune: bool = False
    ann: Ann | int | str = "compressed"
    is_fake: bool = False
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When a run is killed.

    Attributes:
        step: one of `STEPS`, or a part of one ("prune/append"), or None for any moment.
        number: at which of the times that the run comes there, from 1.
        delay_s: from there, or from the moment that the task begins.
    """

    step: str | None = None
    number: int = 1
    delay_s: float


@dataclass(slots=True, kw_only=True)
class Log:
    """What a run said of itself.

    Attributes:
        was_killed: or else it finished.
        wall_s: from its start to its end.
        places: time in ns, and the steps that it was in from then on, the outermost first.
        batches: hashes of the photographs that went through the network.
    """

    was_killed: bool = False
    wall_s: float = 0.0
    places: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    batches: list[tuple[bytes, ...]] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Take one line of the process."""
        when, word, rest = line.split(" ", 2)
        if word == "at":
            self.places.append((int(when), tuple(filter(None, rest.split("/")))))
        else:
            self.batches.append(tuple(map(bytes.fromhex, rest.split())))

    def last_place(self) -> str:
        """Return the step that the run was in at its end."""
        last = self.places[-1][1]
        return last[1] if len(last) > 1 else "between" if last else "end"

    def last_part(self) -> str:
        """Return that step, and the part of it."""
        return "/".join(self.places[-1][1][1:]) or self.last_place()

    def visits(self, step: str) -> Iterator[tuple[int, int | None]]:
        """Yield in ns when the run came to a step, or a part of one, and left it, if it did."""
        parts, begin = tuple(step.split("/")), None
        for when, place in self.places:
            is_inside = place[1 : len(parts) + 1] == parts
            if is_inside and begin is None:
                begin = when
            elif not is_inside and begin is not None:
                yield begin, when
                begin = None
        if begin is not None:
            yield begin, None


def execute(run: Run, kill: Kill | None = None, meanwhile: Callable[[], None] | None = None) -> Log:
    """Start a run, kill it if it comes to that moment, and return its log.

    Args:
        run: what to do.
        kill: when to kill it; None to let it finish.
        meanwhile: called again and again while it goes on.

    Raises:
        ChildProcessError: it failed.
    """
    command = [sys.executable, str(_CHILD), json.dumps(dataclasses.asdict(run))]
    start = time.monotonic()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            log = _follow(process, kill, meanwhile)
        except BaseException:
            process.kill()
            raise
        log.was_killed = process.wait() == -signal.SIGKILL
        log.wall_s = time.monotonic() - start
        if process.returncode and not log.was_killed:
            errors.seek(0)
            raise ChildProcessError(f"{command}: {errors.read().decode()}")
    return log


def _follow(
    process: subprocess.Popen[bytes],
    kill: Kill | None,
    meanwhile: Callable[[], None] | None,
) -> Log:
    """Read what a process says until its end, and kill it when it is time."""
    assert process.stdout is not None
    log, text = Log(), b""
    due: float | None = None
    while True:
        left_s = None if due is None else max(0.0, due - time.monotonic())
        is_free = meanwhile is not None and (left_s is None or left_s > 2 * _PAUSE_S)
        if select.select([process.stdout], [], [], _PAUSE_S if is_free else left_s)[0]:
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                return log
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                log.add(line.decode())
            if kill is not None:
                due = _moment(log, kill)
        elif is_free and meanwhile is not None:
            meanwhile()
        if due is not None and time.monotonic() >= due:
            process.kill()
            due = kill = None


def aimed_kill(step: str, log: Log, rng: random.Random) -> Kill:
    """Return a kill at a moment somewhere in a step, as long as that took in another run."""
    visits = [(end or begin) - begin for begin, end in log.visits(step)]
    number = rng.randint(1, min(3, len(visits)))
    return Kill(step=step, number=number, delay_s=rng.uniform(0, visits[number - 1] / 1e9))


def random_kill(log: Log, rng: random.Random) -> Kill:
    """Return a kill at any moment of a run, as long as another one took."""
    return Kill(delay_s=rng.uniform(0, (log.places[-1][0] - log.places[0][0]) / 1e9))


def _moment(log: Log, kill: Kill) -> float | None:
    """Return when to kill, once the run has come to that step."""
    if kill.step is None:
        begins = [when for when, _ in log.places[:1]]
    else:
        begins = [begin for begin, _ in log.visits(kill.step)]
    if len(begins) < kill.number:
        return None
    return begins[kill.number - 1] / 1e9 + kill.delay_s
