"""What was measured, the bounds that follow from it, and what to conclude.

D photographs are decoded a second, I images run through the network, each alone on all cores. A
CPU's cores share both, so at best 1 / (1/D + 1/I) photographs a second go from files to vectors;
beside a GPU the slower of the two bounds the other: min(D, I).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexnet_deploy.benchmark.agreement import Agreement
from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.benchmark.settings import Setting
from alexnet_deploy.errors import Argument, Message
from alexnet_deploy.timing import Spread

_WORTH = 1.05
"""Times as fast below which a recommendation would be about noise."""
_TIGHT = 0.8
"""Share of its bound above which what bounds a run also holds it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Seconds of each round for all photographs; equal indices are the same round.

    Attributes:
        decoding: from files to crops in batches.
        network: of batches that are ready.
        whole: from files to vectors on the disk, the model open.
        process: the same in a new process, start included.
        processor: of a core during `whole`.
    """

    decoding: Sequence[float]
    network: Sequence[float]
    whole: Sequence[float]
    process: Sequence[float]
    processor: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to run the model; rates are photographs a second.

    Attributes:
        setting: the way, as it was resolved.
        description: what ran.
        decoding: D, nothing but decoding, resizing and cropping.
        network: I, nothing but the network.
        bound: what follows from the two.
        whole: from files to vectors on the disk, the model open.
        share: `whole` as a share of `bound`.
        process: from files to vectors on the disk in a new process, start included.
        cores_used: processors busy in the mean while `whole` was measured.
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
    cores_used: float
    speedup: Spread
    agreement: Agreement | None

    def bottleneck(self) -> str:
        """Say in one sentence what holds it back."""
        decoding, network = self.decoding.median, self.network.median
        if self.setting.options.device != "cpu":
            slower, faster = sorted([(decoding, "decoding"), (network, "the network")])
            if self.share.median < _TIGHT:
                return (
                    f"neither decoding ({decoding:,.0f} a second alone) nor the network "
                    f"({network:,.0f}) holds it back, but what lies between them"
                )
            return (
                f"{slower[1]} holds it back: {slower[0]:,.0f} a second alone, {faster[1]} "
                f"{faster[0]:,.0f}"
            )
        parts = {
            "the network": self.whole.median / network,
            "decoding": self.whole.median / decoding,
        }
        parts["the rest"] = max(0.0, 1 - sum(parts.values()))
        ordered = sorted(parts, key=lambda name: -parts[name])
        others = ", ".join(f"{name} {parts[name]:.0%}" for name in ordered[1:])
        return f"{ordered[0]} holds it back: {parts[ordered[0]]:.0%} of the time; {others}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do, in one sentence.

    Attributes:
        text: the sentence, in Python's words.
        beyond: what would be faster still and is not exact enough, in one sentence; or "".
        changes: arguments to give, by name; none to keep everything as it is.
        speedup: photographs a second, relative to the first row; 1 to keep everything.
    """

    text: Message
    beyond: str
    changes: Mapping[str, str | int]
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """All that was measured.

    Attributes:
        machine: where.
        model: as it was named.
        identity: of the checkpoint.
        num_photographs: that were read.
        num_failed: that could not be, and are in no figure.
        median_size: width and height in px.
        median_bytes: of a file.
        num_rounds: of which the figures are medians and quartiles.
        writing: vectors a second written to the disk, by one core.
        rows: each way to run it, first the usual one.
        remarks: what was left out, and why.
    """

    machine: Machine
    model: str
    identity: str
    num_photographs: int
    num_failed: int
    median_size: tuple[int, int]
    median_bytes: int
    num_rounds: int
    writing: Spread
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    def recommendation(self) -> Recommendation:
        """Return the fastest row that is faster than the first, and agrees with float32."""
        first = self.rows[0]
        ordered = sorted(self.rows[1:], key=lambda row: -row.speedup.median)
        faster = [row for row in ordered if _is_faster(row, self.rows)]
        best = next((row for row in faster if _is_trusted(row, first)), None)
        speedup = 1.0 if best is None else best.speedup.median
        beyond = _beyond(faster[0]) if faster and faster[0] is not best else ""
        if best is None:
            text = Message("keep the defaults: nothing measured here is faster and as exact")
            return Recommendation(text=text, beyond=beyond, changes={}, speedup=speedup)
        changes = _changes(first.setting, best.setting)
        words = [part for name, value in changes.items() for part in (" ", Argument(name, value))]
        gain = f": {best.speedup.median:.2g} times as fast"
        return Recommendation(
            text=Message("use", *words, gain, _agreement_text(best)),
            beyond=beyond,
            changes=changes,
            speedup=speedup,
        )

    def to_json(self) -> str:
        """Return one JSON object."""
        found = self.recommendation()
        return json.dumps(
            {
                **{
                    field.name: _plain(getattr(self, field.name))
                    for field in dataclasses.fields(self)
                    if field.name != "rows"
                },
                "rows": [_row_fields(row) for row in self.rows],
                "bottleneck": self.rows[0].bottleneck(),
                "recommendation": _plain(found),
            }
        )


def row(
    setting: Setting,
    description: str,
    num_photographs: int,
    own: Seconds,
    first: Seconds,
    agreement: Agreement | None,
) -> Row:
    """Return the rates that follow from the seconds of all rounds.

    Args:
        setting: the way.
        description: what ran.
        num_photographs: in a round.
        own: seconds of this way.
        first: those of the first row, in the same rounds.
        agreement: see `Row`.
    """
    pairs = list(zip(own.decoding, own.network, strict=True))
    # Seconds add up where the cores are shared; beside a GPU the longer ones count.
    is_shared = setting.options.device == "cpu"
    bounds = [a + b if is_shared else max(a, b) for a, b in pairs]

    def rate(seconds: Sequence[float]) -> Spread:
        return Spread.of(num_photographs / each for each in seconds)

    def ratio(dividends: Sequence[float], divisors: Sequence[float]) -> Spread:
        return Spread.of(a / b for a, b in zip(dividends, divisors, strict=True))

    return Row(
        setting=setting,
        description=description,
        decoding=rate(own.decoding),
        network=rate(own.network),
        bound=rate(bounds),
        whole=rate(own.whole),
        share=ratio(bounds, own.whole),
        process=rate(own.process),
        cores_used=ratio(own.processor, own.whole).median,
        speedup=ratio(first.whole, own.whole),
        agreement=agreement,
    )


def _is_faster(one: Row, rows: Sequence[Row]) -> bool:
    """Return whether a row beats the first by more than the noise; of equals the first is taken."""
    return one.speedup.median >= _WORTH and one.speedup.lower > 1 and one is not rows[0]


def _is_trusted(one: Row, first: Row) -> bool:
    """Return whether a row's results may stand for the first's."""
    own, usual = one.setting, first.setting
    if own.options.precision == "int8" != usual.options.precision:
        return False  # its ranges are those of the package's samples
    if one.agreement is not None:
        return one.agreement.is_admitted
    return (own.options.precision, own.decode) == (usual.options.precision, usual.decode)


def _changes(usual: Setting, own: Setting) -> dict[str, str | int]:
    """Return the arguments in which a setting differs from the usual one."""
    names = ("runtime", "device", "precision", "batch_size")
    found = {name: getattr(own.options, name) for name in names}
    changed = {
        name: value for name, value in found.items() if value != getattr(usual.options, name)
    }
    if own.decode != usual.decode:
        changed["decode"] = own.decode.scale
    return changed


def _beyond(one: Row) -> str:
    """Say what is faster and not recommended, and why."""
    why = "it agrees less than verify allows"
    if one.setting.options.precision == "int8":
        why = (
            "its ranges are those of the sample photographs; calibrate it on yours with: "
            "alexnet-deploy export CKPT --precision int8 --calibrate PHOTOGRAPHS"
        )
    return (
        f"faster, but not recommended: {one.setting}, {one.speedup.median:.2g} times as fast"
        f"{_agreement_text(one)}; {why}"
    )


def _agreement_text(one: Row) -> str:
    if one.agreement is None:
        return ""
    return f", {one.agreement} on these photographs"


def _row_fields(one: Row) -> dict[str, Any]:
    own = one.setting.options
    return {
        **{name: getattr(own, name) for name in ("runtime", "device", "precision", "batch_size")},
        "decode": _plain(one.setting.decode),
        **{
            field.name: _plain(getattr(one, field.name))
            for field in dataclasses.fields(one)
            if field.name != "setting"
        },
        "bottleneck": one.bottleneck(),
    }


def _plain(value: Any) -> Any:
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dataclasses.asdict(value) if is_record else value
