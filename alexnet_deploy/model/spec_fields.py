"""Checks of the fields of a spec, whoever wrote its JSON; an error names the field.

Numbers come back in the type of their field: some programs write 2.0 as 2, and two equal specs
must not differ in their JSON, which the fingerprint hashes.
"""

import math
import reprlib
from numbers import Real
from typing import Any

from alexnet_deploy.errors import IncompatibleFileError


def require(condition: bool, field: str, came: object, expected: str) -> None:
    """Raise `IncompatibleFileError` unless `condition` holds."""
    if not condition:
        raise IncompatibleFileError(
            f"the spec's {field} is {reprlib.repr(came)}, expected {expected}; "
            "write the file again with this version of alexnet-deploy"
        )


def require_one_of(field: str, came: object, choices: tuple[str, ...]) -> None:
    """Raise `IncompatibleFileError` unless `came` is one of `choices`."""
    require(came in choices, field, came, f"one of {', '.join(choices)}")


def as_float(field: str, value: object) -> float:
    """Return a finite number as a float."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    number = float(value) if isinstance(value, Real) else math.nan
    require(is_number and math.isfinite(number), field, value, "a finite number")
    return number


def as_integer(field: str, value: object, *, minimum: int) -> int:
    """Return a whole number of at least `minimum` as an int."""
    number = as_float(field, value)
    expected = f"a whole number of {minimum} or more"
    require(number.is_integer() and number >= minimum, field, value, expected)
    return int(number)


def as_floats(field: str, values: object, *, count: int) -> tuple[float, ...]:
    """Return a list of `count` finite numbers as a tuple."""
    return tuple(as_float(field, value) for value in _items(field, values, count))


def as_integers(field: str, values: object, *, count: int, minimum: int) -> tuple[int, ...]:
    """Return a list of `count` whole numbers of at least `minimum` as a tuple."""
    items = _items(field, values, count)
    return tuple(as_integer(field, value, minimum=minimum) for value in items)


def as_strings(field: str, values: object) -> tuple[str, ...]:
    """Return a list of strings as a tuple."""
    items = _items(field, values)
    require(all(isinstance(item, str) for item in items), field, values, "a list of strings")
    return items


def store(spec: object, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(spec, name, value)


def _items(field: str, values: object, count: int | None = None) -> tuple[Any, ...]:
    items = tuple(values) if isinstance(values, (list, tuple)) else ()
    is_list = isinstance(values, (list, tuple)) and count in (None, len(items))
    require(is_list, field, values, "a list" if count is None else f"a list of {count}")
    return items
