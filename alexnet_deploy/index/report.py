"""The outcome of a run of `index`."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from alexnet_deploy.errors import Argument, Message, MissingPhotographsError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.index.scan import Loss
from alexnet_deploy.inference.failures import FailureLimit, check_failures
from alexnet_deploy.inference.run import RunSummary


@dataclass(slots=True, kw_only=True)
class IndexReport:
    """The outcome of a run.

    Attributes:
        directory: of the index.
        num_embedded: photographs embedded.
        num_reused: new or changed photographs whose content already had a vector: renamed, copied,
            or reverted.
        num_unchanged: indexed photographs that have not changed.
        num_failed: photographs that could not be read in this run.
        num_failed_before: photographs that failed in an earlier run, have not changed, and were not
            retried.
        num_removed: photographs that are gone, or not wanted any more, and were removed.
        losses: photographs that are gone and were kept, by root.
        summary: counts and times of decoding and inference.
    """

    directory: Path
    num_embedded: int = 0
    num_reused: int = 0
    num_unchanged: int = 0
    num_failed: int = 0
    num_failed_before: int = 0
    num_removed: int = 0
    losses: tuple[Loss, ...] = ()
    summary: RunSummary = field(default_factory=RunSummary)

    def line(self) -> Message:
        """Render the run: counts, rate, and where the time went; below that what was left out."""
        counts: list[str | Argument] = [
            f"{self.num_embedded:,} embedded, {self.num_reused:,} reused, "
            f"{self.num_unchanged:,} unchanged, {self.num_removed:,} removed, "
            f"{self.num_failed:,} failed"
        ]
        if self.num_failed_before:
            retry = Argument("retry_failed", True)
            counts += [f", {self.num_failed_before:,} failed before (", retry, " tries again)"]
        left_out = self.summary.left_out.line()
        return Message(*counts, f" {self.summary.times()}", f"; {left_out}" if left_out else "")

    def to_json(self) -> str:
        """Return one JSON object.

        Keys: index, embedded, reused, unchanged, failed, failed_before, removed, missing (by root,
        how many are gone and were kept), left_out (by suffix, how many were not tried).
        """
        return json.dumps(
            {
                "index": str(self.directory),
                "embedded": self.num_embedded,
                "reused": self.num_reused,
                "unchanged": self.num_unchanged,
                "failed": self.num_failed,
                "failed_before": self.num_failed_before,
                "removed": self.num_removed,
                "missing": {str(loss.root.path): loss.num_lost for loss in self.losses},
                "left_out": dict(self.summary.left_out.counts),
            }
        )

    def check(self, limit: FailureLimit) -> None:
        """Raise for a run with losses, or with more failures than `limit` allows.

        The limit applies to all photographs found, without those that failed before.

        Raises:
            MissingPhotographsError, TooManyFailuresError: with the numbers.
        """
        self.check_losses()
        num_good = self.num_embedded + self.num_reused + self.num_unchanged
        check_failures(self.num_failed, num_good + self.num_failed, limit)

    def check_losses(self) -> None:
        """Raise for a run in which a root has lost too much.

        Raises:
            MissingPhotographsError: with the counts of each such root and what to do.
        """
        if self.losses:
            lines = [
                f"{printable(loss.root.path)}: {loss.num_lost:,} of {loss.num_indexed:,} indexed "
                f"photographs are gone{_why(loss)}"
                for loss in self.losses
            ]
            raise MissingPhotographsError(
                "; ".join(lines) + "; they stay in the index; mount the drive, name the folder's "
                "new place with ",
                Argument("moved_roots", "OLD=NEW"),
                ", or remove them with ",
                Argument("prune", True),
            )


def _why(loss: Loss) -> str:
    return "" if os.path.isdir(loss.root.path) else " (the folder is missing)"
