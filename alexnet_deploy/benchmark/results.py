"""What was measured, the bounds that follow from it, and what to conclude.

D photographs are decoded a second, I images run through the network, each alone on all cores. A
CPU's cores share both, so at best 1 / (1/D + 1/I) photographs a second go from files to vectors;
where a GPU does one of the two, or both, the slower bounds the other: min(D, I).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.benchmark.settings import Setting
from alexnet_deploy.errors import Argument, Message
from alexnet_deploy.timing import Spread
from alexnet_deploy.verification.agreement import Agreement

_WORTH = 1.05
"""Times as fast that three of four rounds show, below which a recommendation is about noise."""
_TIGHT = 0.8
"""Share of its bound above which what bounds a run also holds it back."""
_OPTIONS = ("runtime", "device", "precision", "batch_size")

Seconds = Mapping[str, Sequence[float]]
"""Of "decoding", "network", "whole" and "process": in each round, for all photographs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to run the model; rates are photographs a second.

    Attributes:
        setting: the way, as it was resolved.
        description: what ran.
        decoding: D, from files to crops in batches.
        network: I, of batches that are ready, on a GPU with two calls under way as in a run.
        bound: what follows from the two.
        whole: from files to a file of vectors, the model open.
        share: `whole` as a share of `bound`.
        process: as `whole` in a new process, start included.
        speedup: `whole` relative to that of the first row.
        agreement: with float32 and exact decoding; None where that was not measured, or is this.
    """

    setting: Setting
    description: str
    decoding: Spread
    network: Spread
    bound: Spread
    whole: Spread
    share: Spread
    process: Spread
    speedup: Spread
    agreement: Agreement | None

    @classmethod
    def of(
        cls,
        setting: Setting,
        description: str,
        num_photographs: int,
        own: Seconds,
        first: Seconds,
        agreement: Agreement | None,
    ) -> Self:
        """Return what follows from the seconds of this way, and of the first in the same rounds."""
        # Seconds add up where the cores are shared; beside a GPU the longer ones count.
        together = sum if setting.is_on_one_cpu else max
        bounds = [together(pair) for pair in zip(own["decoding"], own["network"], strict=True)]
        rates = {
            name: Spread.of(num_photographs / each for each in seconds)
            for name, seconds in {**own, "bound": bounds}.items()
        }
        return cls(
            setting=setting,
            description=description,
            share=Spread.of(a / b for a, b in zip(bounds, own["whole"], strict=True)),
            speedup=Spread.of(a / b for a, b in zip(first["whole"], own["whole"], strict=True)),
            agreement=agreement,
            **rates,
        )

    def bottleneck(self) -> str:
        """Say in one sentence what holds it back."""
        rates = {"decoding": self.decoding.median, "the network": self.network.median}
        slower, faster = sorted(rates, key=rates.__getitem__)
        share = min(1.0, self.share.median)
        if self.setting.is_on_one_cpu:
            part = share * rates[faster] / sum(rates.values())
            parts = {slower: part, faster: share - part, "the rest": 1 - share}
            most, *others = sorted(parts, key=lambda name: -parts[name])
            rest = ", ".join(f"{name} {parts[name]:.0%}" for name in others)
            return f"{most} holds it back: {parts[most]:.0%} of the time; {rest}"
        alone = f"{rates[slower]:,.0f} a second alone, {faster} {rates[faster]:,.0f}"
        if share < _TIGHT:
            return f"what lies between decoding and the network holds it back: {slower} {alone}"
        return f"{slower} holds it back: {alone}"

    def __str__(self) -> str:
        """Return how fast it is relative to the first row, and how far its results agree."""
        agrees = "" if self.agreement is None else f", {self.agreement} on these photographs"
        return f"{self.speedup.median:.2g} times as fast{agrees}"

    def doubt(self, first: "Row") -> str:
        """Return why its results may not stand for the first row's, or ""."""
        own, usual = self.setting, first.setting
        if self.agreement is not None and not self.agreement.is_admitted:
            return "it agrees less than verify allows"
        if own.options.precision == "int8" != usual.options.precision:
            return (
                "its ranges are those of the sample photographs; it is calibrated on yours by: "
                "alexnet-deploy index PHOTOGRAPHS --fast"
            )
        is_same = (own.options.precision, own.decode) == (usual.options.precision, usual.decode)
        if self.agreement is None and not is_same:
            return "how far it agrees was not measured, which takes fp32 and exact decoding"
        return ""

    def fields(self) -> dict[str, Any]:
        """Return all for JSON, the setting by its arguments."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        options = found.pop("setting").options
        own = {name: getattr(options, name) for name in _OPTIONS} | {"decode": self.setting.decode}
        return own | found | {"bottleneck": self.bottleneck()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do.

    Attributes:
        text: in one sentence, in Python's words.
        beyond: what would be faster still and is not exact enough, in one sentence; or "".
        changes: arguments to give, by name; none to keep everything as it is.
    """

    text: Message
    beyond: str
    changes: Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """All that was measured.

    Attributes:
        machine: where.
        model: as it was named.
        identity: of the checkpoint.
        num_photographs: that were read.
        num_failed: that could not be, and are in no figure.
        median_size: width and height of the photographs in px.
        num_rounds: of which the figures are medians and quartiles.
        writing: vectors a second written to a file, by one core.
        rows: each way to run it, first the usual one.
        remarks: what was left out, and why, in Python's words.
    """

    machine: Machine
    model: str
    identity: str
    num_photographs: int
    num_failed: int
    median_size: tuple[int, int]
    num_rounds: int
    writing: Spread
    rows: tuple[Row, ...]
    remarks: tuple[Message, ...] = ()

    def recommendation(self) -> Recommendation:
        """Return the fastest row that is faster than the first, and agrees with float32."""
        first, *others = self.rows
        faster = sorted(
            (row for row in others if row.speedup.lower >= _WORTH),
            key=lambda row: -row.speedup.median,
        )
        best = next((row for row in faster if not row.doubt(first)), first)
        beyond = ""
        if faster and faster[0] is not best:
            row = faster[0]
            beyond = f"faster, but not recommended: {row.setting}, {row}; {row.doubt(first)}"
        changes = _changes(first.setting, best.setting)
        words = [part for name, value in changes.items() for part in (" ", Argument(name, value))]
        text = Message("use", *words, f": {best}")
        if best is first:
            why = "measured here is faster and as exact" if others else "else was measured"
            text = Message(f"keep {first.setting}: nothing {why}")
        return Recommendation(text=text, beyond=beyond, changes=changes)

    def to_json(self) -> str:
        """Return one JSON object."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found["rows"] = [row.fields() for row in self.rows]
        found["recommendation"] = self.recommendation()
        return json.dumps(found, default=dataclasses.asdict)


def _changes(usual: Setting, own: Setting) -> dict[str, str | int]:
    """Return the arguments in which a setting differs from the usual one."""
    pairs = {name: (getattr(own.options, name), getattr(usual.options, name)) for name in _OPTIONS}
    pairs["decode"] = (own.decode.scale, usual.decode.scale)
    return {name: value for name, (value, other) in pairs.items() if value != other}
