"""A protobuf message, whether it was read from bytes or from text."""

from dataclasses import dataclass
from typing import Any


class MessageError(ValueError):
    """What was read is no message, or not of the kind that was expected; says what it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """Numbers where they lie in a file: `count` of them, from byte `start` on, `step` apart."""

    start: int
    count: int
    step: int


class Message:
    """Values by the names of their fields, in their order; every field may repeat.

    Texts and enumerators are `str`, and so are a text file's `true` and `false`; wire-format
    booleans are 0 and 1. Where a field does not repeat, its last value counts.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def add(self, name: str, value: Any) -> None:
        """Append a value of the field `name`."""
        self._values.setdefault(name, []).append(value)

    def texts(self, name: str) -> list[str]:
        """Return the texts or enumerators of a field."""
        return self._all(name, str, "a text")

    def text(self, name: str, default: str = "") -> str:
        """Return the text or enumerator of a field."""
        return (self.texts(name) or [default])[-1]

    def wholes(self, name: str) -> list[int]:
        """Return the whole numbers of a field."""
        return self._all(name, int, "a whole number")

    def whole(self, name: str, default: int) -> int:
        """Return the whole number of a field."""
        return (self.wholes(name) or [default])[-1]

    def numbers(self, name: str) -> list[float]:
        """Return the numbers of a field."""
        return [float(value) for value in self._all(name, (int, float), "a number")]

    def number(self, name: str, default: float) -> float:
        """Return the number of a field."""
        return (self.numbers(name) or [default])[-1]

    def flag(self, name: str, default: bool) -> bool:
        """Return the truth of a field."""
        value = (self._values.get(name) or [default])[-1]
        return value in ("true", "True", "t", 1)

    def messages(self, name: str) -> list["Message"]:
        """Return the messages of a field."""
        return self._all(name, Message, "a message")

    def message(self, name: str) -> "Message":
        """Return the message of a field, an empty one where there is none."""
        return (self.messages(name) or [Message()])[-1]

    def runs(self, name: str) -> list[Run]:
        """Return where the numbers of a field lie."""
        return self._all(name, Run, "numbers in binary")

    def _all(self, name: str, kind: Any, expected: str) -> list[Any]:
        values = self._values.get(name, [])
        for value in values:
            if not isinstance(value, kind):
                came = "a message" if isinstance(value, Message) else repr(value)[:80]
                raise MessageError(f"its {name} is {came}, expected {expected}")
        return values
