"""A verification report: a table for people, JSON for the file's metadata."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from alexnet_deploy.errors import Argument, Message, VerificationError
from alexnet_deploy.files.path_text import printable
from alexnet_deploy.files.records import Within, damaged, read_record

ADVICE = Message(
    "do not use this file for that checkpoint: export the checkpoint again, or name the one that "
    "the file was made from; if it still fails try another ",
    Argument("runtime"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report: the value measured and the value allowed."""

    name: str
    measured: str
    allowed: str
    passed: bool


def error_check(name: str, error: float, allowed: float) -> Check:
    """Return a check that an error is within its bound; NaN is not."""
    return Check(
        name=name,
        measured=f"{error:.1e}",
        allowed=f"<= {allowed:.0e}",
        passed=bool(error <= allowed),  # False for NaN
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of one verification; `to_dict` goes into the file's metadata.

    Attributes:
        checks: every comparison made, in table order.
        runs: what ran the artefact: runtime, version, device, precision.
        against: identity of the checkpoint that the reference ran.
        num_photographs: photographs compared.
        skipped: photographs that could not be read, with the reason.
    """

    checks: tuple[Check, ...]
    runs: str
    against: str
    num_photographs: Annotated[int, Within(0, 2**31)]
    skipped: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Return whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, `passed` included."""
        return dataclasses.asdict(self) | {"passed": self.passed}

    def table(self) -> str:
        """Return the report as aligned text for a terminal, one line per check."""
        rows = [("check", "measured", "allowed", "")]
        for check in self.checks:
            verdict = "ok" if check.passed else "FAILED"
            rows.append((check.name, check.measured, check.allowed, verdict))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            f"{name:<{widths[0]}}  {measured:>{widths[1]}}  {allowed:>{widths[2]}}  {verdict}"
            for name, measured, allowed, verdict in rows
        ]
        title = f"{self.num_photographs} photographs, {self.runs}, against {self.against[:12]}"
        lines = [title, *(line.rstrip() for line in lines)]
        lines += [f"not compared: {reason}" for reason in self.skipped]
        return "\n".join(map(printable, lines))

    def raise_if_failed(self, source: str, advice: str = ADVICE) -> None:
        """Raise `VerificationError`, naming the failed checks and what to do, unless all passed."""
        failed = [
            f"{check.name} {check.measured} (allowed {check.allowed})"
            for check in self.checks
            if not check.passed
        ]
        if failed:
            raise VerificationError(f"{source}: verification failed: {'; '.join(failed)}; ", advice)


def check_report(fields: Mapping[str, Any], source: str, otherwise: str) -> None:
    """Reject fields that `Report.to_dict` did not write; arguments as for `records.json_object`.

    Raises:
        IncompatibleFileError: a field is unknown, missing or invalid.
    """
    source = f"{source}: its report"
    rest = {name: value for name, value in fields.items() if name != "passed"}
    report = read_record(Report, rest, source, otherwise)
    if fields.get("passed") is not report.passed:
        raise damaged(source, "passed contradicts its checks", otherwise)
