"""Kill what changes an index again and again, finish it, and compare it with one left undisturbed.

After each kill the index is examined: whole, every row and vector as it should be, and searched.
The log of the runs is held against the ledger: a photograph goes through the network once, and
once more for each kill that found it in a batch not yet committed.
"""

import dataclasses
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.index.manifest import MANIFEST_NAME
from alexnet_deploy.index.results import SearchResult
from tests.support.index_runner import search
from tests.support.killed_runs import EXPORTED, Kill, Log, Run, execute
from tests.support.killed_scenarios import Difference, Scenario, State, cosines

K = 5  # neighbours of each search


@dataclass(slots=True, kw_only=True)
class Account:
    """What was done.

    Attributes:
        random: kills at any moment, by the step that they found.
        aimed: kills at a step, by the part of it that they found.
        by_index: all kills, by the directory of their scenario's undisturbed index.
        num_finished: indexes that were finished and compared.
        num_needed: photographs that undisturbed runs would have embedded.
        num_embedded: photographs that went through the network, counted from the logs.
        num_lost: those of them whose batch a kill found not yet committed.
        num_searches: searches of an index that a run had just left.
        num_searches_meanwhile: searches of an index during a run.
    """

    random: Counter[str] = field(default_factory=Counter)
    aimed: Counter[str] = field(default_factory=Counter)
    by_index: Counter[str] = field(default_factory=Counter)
    num_finished: int = 0
    num_needed: int = 0
    num_embedded: int = 0
    num_lost: int = 0
    num_searches: int = 0
    num_searches_meanwhile: int = 0

    def add(self, other: "Account") -> None:
        """Count what another has counted, too."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def num_inside(self, step: str) -> int:
        """Count the kills that were aimed at a step, or at a part of it, and found it."""
        return sum(
            number for place, number in self.aimed.items() if f"{place}/".startswith(f"{step}/")
        )


@dataclass(slots=True, kw_only=True)
class Life:
    """One index from nothing, or from the scenario's base, to its end, runs killed on the way.

    Attributes:
        scenario: of its runs.
        directory: of the index; does not exist yet, and is removed when all is well.
        account: counted up.
        rng: decides what each kill is followed by.
        history: the kills, for messages.
    """

    scenario: Scenario
    directory: Path
    account: Account
    rng: random.Random
    history: list[str] = field(default_factory=list)

    def run(self, next_kill: Callable[[], Kill | None]) -> None:
        """Kill runs until `next_kill` returns None or one finishes before its kill.

        Raises:
            Difference: the index is not what it should be.
        """
        try:
            self._run(next_kill)
        except Exception as error:
            raise Difference(
                f"{self.directory} ({self.scenario.run}), after {self.history}: {error!r}"
            ) from error
        shutil.rmtree(self.directory)
        self.account.num_finished += 1

    def _run(self, next_kill: Callable[[], Kill | None]) -> None:
        scenario = self.scenario
        run = dataclasses.replace(scenario.run, directory=str(self.directory))
        if scenario.base is not None:
            shutil.copytree(scenario.base, self.directory)
        state, num_embedded, num_lost = scenario.before, 0, 0
        is_killed = True
        while is_killed:
            kill = next_kill()
            is_searched = kill is None or (kill.step is None and self.rng.random() < 0.5)
            log = self._execute(run, kill, self._search_meanwhile if is_searched else None)
            self._note(kill, log)
            before, state = state, self._examined()
            lost = lost_photographs(log, before, state)
            num_embedded += sum(map(len, log.batches))
            num_lost += len(lost)
            is_killed = log.was_killed
        if self.rng.random() < 0.1 and self._execute(run).batches:
            raise Difference("another run embeds again")
        for name in State.__slots__:
            if getattr(state, name) != getattr(scenario.after, name):
                raise Difference(f"its {name} are not those of {scenario.run.directory}")
        num_needed = sum(map(len, scenario.log.batches))
        if num_embedded != num_needed + num_lost:
            raise Difference(f"embedded {num_embedded} photographs, not {num_needed} + {num_lost}")
        self.account.num_needed += num_needed
        self.account.num_embedded += num_embedded
        self.account.num_lost += num_lost

    def _note(self, kill: Kill | None, log: Log) -> None:
        if kill is None or not log.was_killed:
            self.history.append("finished")
            return
        self.history.append(f"{kill}: killed in {log.last_part()}")
        self.account.by_index[self.scenario.run.directory] += 1
        if kill.step is None:
            self.account.random[log.last_place()] += 1
        else:
            self.account.aimed[log.last_part()] += 1

    def _execute(
        self, run: Run, kill: Kill | None = None, meanwhile: Callable[[], None] | None = None
    ) -> Log:
        """Execute a run; what was exported is removed first, for which an export would ask."""
        if any(self.directory.glob(f"{EXPORTED}/*.parquet")):
            shutil.rmtree(self.directory / EXPORTED)
        return execute(run, kill, meanwhile)

    def _examined(self) -> State:
        """Return the state, after comparing it with what it may be, and searching it.

        Every second time this happens to a copy: so the next run finds things as the killed
        one left them, and not after a reader has undone a half commit.
        """
        directory = self.directory
        if self.rng.random() < 0.5 and directory.exists():
            directory = directory.with_name(f"{directory.name}-copy")
            shutil.copytree(self.directory, directory)
        try:
            return self._examine(directory)
        finally:
            if directory != self.directory:
                shutil.rmtree(directory)

    def _examine(self, directory: Path) -> State:
        if not (directory / MANIFEST_NAME).exists():
            with suppress(UsageError, IncompatibleFileError):  # "is not an index", "not there"
                list(search(directory, [self.scenario.query]))
                raise Difference("is searched without a manifest")
            return State()
        state = State.read(directory)
        before, after = self.scenario.before, self.scenario.after
        for key, fields in state.rows.items():
            if fields not in (before.rows.get(key), after.rows.get(key)):
                raise Difference(f"photograph {key} is {fields}")
        for sha256, vector in state.vectors.items():
            if vector != after.vectors.get(sha256, before.vectors.get(sha256)):
                raise Difference(f"the vector of {sha256.hex()} is another one")
        for sha256, hashes in state.hashes.items():
            if hashes not in (before.hashes.get(sha256), after.hashes.get(sha256)):
                raise Difference(f"the hashes of {sha256.hex()} are other ones")
        if state.exported not in ({}, after.exported):
            raise Difference(f"of an export there is {sorted(state.exported)}")
        queries = [self.scenario.query]
        if self.rng.random() < 0.1:
            queries.append(self.scenario.stranger)
        for result in search(directory, queries, k=K, notify=_check_notice):
            _check_answer(result, state)
            self.account.num_searches += 1
        return state

    def _search_meanwhile(self) -> None:
        """Search during a run, which may commit or compact at the same moment."""
        if not (self.directory / MANIFEST_NAME).exists():
            return
        (result,) = search(self.directory, [self.scenario.query], k=K, notify=_check_notice)
        if result.error is not None:
            raise Difference(f"search during a run: {result.error}")
        possible = self.scenario.possible_cosines()
        for neighbour in result.neighbours:
            # The query's own vector, computed alone while the index is empty, may round otherwise.
            found = neighbour.cosine_similarity
            if not any(abs(found - value) < 1e-3 for value in possible.get(neighbour.path, ())):
                raise Difference(f"search during a run: {neighbour}")
        self.account.num_searches_meanwhile += 1


def lost_photographs(log: Log, before: State, after: State) -> tuple[bytes, ...]:
    """Return what a run has embedded in vain: at most the batch that a kill found uncommitted.

    Raises:
        Difference: a photograph went through the network that was indexed already or had been
            through in this run, or a batch is there in part.
    """
    known = set(before.vectors)
    lost: tuple[bytes, ...] = ()
    for number, batch in enumerate(log.batches, start=1):
        if known & set(batch) or len(set(batch)) < len(batch):
            raise Difference("a photograph is embedded twice")
        known |= set(batch)
        num_there = len(after.vectors.keys() & set(batch))
        if num_there == 0 and log.was_killed and number == len(log.batches):
            lost = batch
        elif num_there < len(batch):
            raise Difference(f"{num_there} of a batch of {len(batch)} are there")
    return lost


def _check_notice(line: str) -> None:
    if "every vector is compared" in line:
        raise Difference(f"search: {line}")


def _check_answer(result: SearchResult, state: State) -> None:
    """Hold the answer to an index at rest against plain NumPy."""
    if result.error is not None:
        raise Difference(f"search: {result.error}")
    vectors = state.vectors_by_path()
    is_own = isinstance(result.query, Path) and result.query in vectors
    if len(result.neighbours) != min(K, len(vectors) - is_own):
        raise Difference(f"search: {len(result.neighbours)} neighbours of {len(vectors)}")
    expected = cosines(state, result.query)
    if not expected:
        return
    nearest = sorted(expected.values(), reverse=True)
    for neighbour, cosine in zip(result.neighbours, nearest, strict=False):
        found = neighbour.cosine_similarity
        # Two sums in float64, in another order.
        if not abs(found - cosine) < 1e-9 or not abs(found - expected[neighbour.path]) < 1e-9:
            raise Difference(f"search: {neighbour}, expected {cosine}")
