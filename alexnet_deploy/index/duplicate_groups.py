"""Photographs that are there more than once: values, JSON, and a list for people."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_deploy.files.path_text import path_fields, printable
from alexnet_deploy.photographs.likeness import UPRIGHT, Orientation

_LEAST_CUT = 0.02
"""Of an area: less is a rounding of how the two were aligned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A photograph, and how it differs from the first of its group.

    Attributes:
        path: absolute.
        correlation: of the greys of both, where they show the same, -1..1; 1 for equal pixels.
        orientation: how the first has to be turned to match.
        shown: the share of the first's area that this one shows, 0..1.
        beyond: the share of this one's area that the first does not show.
        is_grey: whether this one has no colours, and the first has.
    """

    path: Path
    correlation: float = 1.0
    orientation: Orientation = UPRIGHT
    shown: float = 1.0
    beyond: float = 0.0
    is_grey: bool = False

    @property
    def remark(self) -> str:
        """It in words: "mirrored, turned 90, cropped, shows more, grey"; or nothing."""
        words = {
            "mirrored": self.orientation.mirrored,
            f"turned {self.orientation.turned}": self.orientation.turned > 0,
            "cropped": self.shown < 1 - _LEAST_CUT,
            "shows more": self.beyond > _LEAST_CUT,
            "grey": self.is_grey,
        }
        return ", ".join(word for word, is_true in words.items() if is_true)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A photograph, and those that are the same or nearly the same as it.

    Attributes:
        first: the largest file; of those with the same bytes the one that was indexed first.
        copies: each compared with `first`, and not with the others.
    """

    first: Path
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What is more than once in an index.

    Of each group only the first is compared further: what a group has is in none of the next
    kind, but for its first.

    Attributes:
        directory: of the index.
        num_photographs: files in the index, of folders that are there.
        num_failed: contents that could not be compared: gone, changed, not read, or of a folder
            that is not there.
        num_absent: of these, contents of folders that are not there.
        same_bytes: files with the same bytes, unchanged since they were indexed.
        same_pixels: files that decode to the same pixels, upright and in sRGB, 8 bits a channel.
        nearly_same: photographs that correlate with the largest file of their group.
    """

    directory: Path
    num_photographs: int
    num_failed: int
    num_absent: int
    same_bytes: tuple[Group, ...]
    same_pixels: tuple[Group, ...]
    nearly_same: tuple[Group, ...]

    @property
    def kinds(self) -> dict[str, tuple[Group, ...]]:
        """The three answers, by their names for people."""
        return {
            "same bytes": self.same_bytes,
            "same pixels": self.same_pixels,
            "nearly the same": self.nearly_same,
        }

    def line(self) -> str:
        """Return how many copies there are of each kind."""
        counts = (
            f"{sum(len(group.copies) for group in groups):,} {name}"
            for name, groups in self.kinds.items()
        )
        return f"{self.num_photographs:,} photographs; copies among them: {', '.join(counts)}"

    def to_json(self) -> str:
        """Return one JSON object.

        Keys: index, photographs, failed, and for each kind (same_bytes, same_pixels, nearly_same)
        its groups: the path of the first, and copies. Each copy has its path; one that is nearly
        the same also correlation, mirrored, turned, shown, beyond and grey, see `Copy`.
        """
        return json.dumps(
            {
                "index": str(self.directory),
                "photographs": self.num_photographs,
                "failed": self.num_failed,
                "same_bytes": [_fields(group, path_only=True) for group in self.same_bytes],
                "same_pixels": [_fields(group, path_only=True) for group in self.same_pixels],
                "nearly_same": [_fields(group, path_only=False) for group in self.nearly_same],
            }
        )

    def to_text(self) -> str:
        """Return for each kind its groups: the first, and below it the copies."""
        blocks = []
        for name, groups in self.kinds.items():
            for group in groups:
                lines = [name, f"  {printable(group.first)}"]
                for copy in group.copies:
                    lines.append(f"  {printable(copy.path)}")
                    if copy.remark:
                        lines[-1] += f"  ({copy.remark})"
                blocks.append("\n".join(lines))
        return "\n\n".join(blocks)


def _fields(group: Group, *, path_only: bool) -> dict[str, Any]:
    copies: list[dict[str, Any]] = []
    for copy in group.copies:
        fields: dict[str, Any] = {
            "correlation": copy.correlation,
            "mirrored": copy.orientation.mirrored,
            "turned": copy.orientation.turned,
            "shown": copy.shown,
            "beyond": copy.beyond,
            "grey": copy.is_grey,
        }
        copies.append({**path_fields(copy.path), **({} if path_only else fields)})
    return {**path_fields(group.first), "copies": copies}
