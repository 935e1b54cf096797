"""Records: JSON parsed into frozen dataclasses and validated by their annotations.

`Annotated[int, Within(1, 999)]` is a field with bounds. A record whose class has a `FORMAT` stores
that number as "format". Stricter than JSON itself: keys are unique, numbers finite, nesting
bounded. A field annotated `Mapping[str, Any]` accepts any JSON object.
"""

import dataclasses
import functools
import json
import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.files.regular_files import MAX_BYTES

_MAX_DEPTH = 32
_FOREIGN_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")

LATER: Mapping[str, Any] = MappingProxyType({"later": True})
"""Metadata of a field with a default that files of earlier versions lack. While it has its default
it is left out, so that the same record has the same JSON in every version."""

_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Within:
    """Bounds of a number, or of the length of a string or a tuple."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def holds(self, value: Any) -> bool:
        """Return whether `value` is within the bounds."""
        number = len(value) if isinstance(value, (str, tuple)) else value
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        lower = {"at least": self.least, "more than": self.above}
        bounds = lower | {"at most": self.most, "less than": self.below}
        words = (f"{word} {bound:,}" for word, bound in bounds.items() if math.isfinite(bound))
        return " and ".join(words)


@dataclass(frozen=True, slots=True)
class Matching:
    """A regular expression that the whole string must match."""

    pattern: str

    def holds(self, value: str) -> bool:
        """Return whether the whole of `value` matches."""
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return f"a string like {self.pattern}"


class _FieldError(IncompatibleFileError):
    """An invalid field; `complaint` continues the sentence that its name begins."""

    def __init__(self, field: str, complaint: str) -> None:
        super().__init__(f"{field} {complaint}" if field else complaint)
        self.field, self.complaint = field, complaint


class _OtherFormatError(_FieldError):
    """A record of another version of this program."""

    def __init__(self, field: str, came: int, own: int) -> None:
        super().__init__(field, f"is {came}, this version of alexnet-deploy reads {own}")
        self.remedy = "update alexnet-deploy, or " if came > own else ""


def require(condition: bool, field: str, came: object, expected: str) -> None:
    """Reject a record for a reason that no annotation can express; for its `__post_init__`.

    Raises:
        IncompatibleFileError: `condition` does not hold.
    """
    if not condition:
        raise _FieldError(field, f"is {reprlib.repr(came)}, expected {expected}")


def check_fields(record: Any) -> None:
    """Validate a record made in code against its annotations; for its `__post_init__`.

    Numbers, NumPy's included, are converted to the annotated type, and lists to tuples, so that
    equal records have the same JSON, whoever made them.

    Raises:
        IncompatibleFileError: naming the field, the value given and what was expected.
    """
    for name, kind in _kinds(record.__class__).items():
        object.__setattr__(record, name, _value(kind, getattr(record, name), name))


def plain_fields(record: Any) -> dict[str, Any]:
    """Return what is stored of a record and of those in it: all but `LATER` fields at default."""
    values = {field: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {
        field.name: _stored(value)
        for field, value in values.items()
        if "later" not in field.metadata or value != field.default
    }


def _stored(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_stored, value))
    return plain_fields(value) if dataclasses.is_dataclass(value) else value


def json_object(text: str | bytes, source: str, otherwise: str) -> dict[str, Any]:
    """Return the fields of a JSON object, for a reader that needs them before they become a record.

    Args:
        text: bytes are UTF-8.
        source: where it comes from, for messages.
        otherwise: what to do if no copy can be restored, for messages.

    Raises:
        IncompatibleFileError: it is not a JSON object, or longer than `MAX_BYTES`.
    """
    try:
        if len(text) > MAX_BYTES:  # the metadata of a model file has no other bound
            raise ValueError(f"it is longer than {MAX_BYTES:,} bytes")
        value = json.loads(
            text if isinstance(text, str) else str(text, "utf-8"),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_finite,
        )
        _check_depth(value)
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (TypeError, ValueError, RecursionError) as error:  # TypeError: not even text
        raise damaged(source, error, otherwise) from error
    return value


def read_record(
    kind: type[_Record], content: str | bytes | Mapping[str, Any], source: str, otherwise: str
) -> _Record:
    """Read a record from its JSON, or from the fields that `json_object` returned; see there.

    Raises:
        IncompatibleFileError: not JSON, of another format, or a field is unknown, missing or
            invalid.
    """
    if not isinstance(content, Mapping):
        content = json_object(content, source, otherwise)
    try:
        record: _Record = _record(kind, content, "")
    except _OtherFormatError as error:
        raise IncompatibleFileError(f"{source}: {error}; {error.remedy}", otherwise) from error
    except _FieldError as error:
        raise damaged(source, error, otherwise) from error
    return record


def damaged(source: str, reason: object, otherwise: str) -> IncompatibleFileError:
    """Return the error for a file whose content is not what was written."""
    return IncompatibleFileError(
        f"{source}: damaged ({reason}); restore it from a copy, or ", otherwise
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"{reprlib.repr(name)} occurs twice in one object")
        fields[name] = value
    return fields


def _finite(text: str) -> float:
    number = float(text)  # "1e400" is infinite, and the constants are NaN and Infinity
    if not math.isfinite(number):
        raise ValueError(f"{reprlib.repr(text)} is not a finite number")
    return number


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        objects = (item.values() for item in level if isinstance(item, dict))
        lists = (item for item in level if isinstance(item, list))
        level = [inner for items in (*objects, *lists) for inner in items]
        if not level:
            return
    raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")


@functools.cache
def _kinds(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def _later(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(kind) if "later" in field.metadata)


def _record(kind: Any, fields: object, prefix: str) -> Any:
    """Make a record; `prefix` is "spec." for one within the field "spec"."""
    if not isinstance(fields, Mapping):
        raise _FieldError(prefix[:-1], f"is {reprlib.repr(fields)}, expected a JSON object")
    rest = dict(fields)
    if hasattr(kind, "FORMAT"):
        came = _value(int, rest.pop("format", None), f"{prefix}format")
        if came != kind.FORMAT:
            raise _OtherFormatError(f"{prefix}format", came, kind.FORMAT)
    kinds = _kinds(kind)
    for name in rest.keys() - kinds.keys():
        raise _FieldError(prefix + reprlib.repr(name), f"is unknown, expected {', '.join(kinds)}")
    for name in kinds:
        if name not in rest and name not in _later(kind):
            # Other defaults are for code: a file holds every field.
            raise _FieldError(prefix + name, "is missing")
    values = {name: _value(kinds[name], value, prefix + name) for name, value in rest.items()}
    try:
        return kind(**values)
    except _FieldError as error:
        raise _FieldError(prefix + error.field, error.complaint) from error
    except UsageError as error:  # of a class that is also an argument of the command line
        raise _FieldError(prefix[:-1], f"is invalid: {error}") from error


def _value(kind: Any, value: Any, field: str) -> Any:
    """Convert `value` to the annotated type `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _value(arguments[0], value, field)
        for limit in arguments[1:]:
            require(limit.holds(value), field, value, str(limit))
        return value
    if origin in (Union, UnionType):  # "X | None"
        return None if value is None else _value(arguments[0], value, field)
    if origin is Literal:
        is_choice = isinstance(value, str) and value in arguments
        require(is_choice, field, value, f"one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, field)
    if origin is Mapping:
        require(isinstance(value, Mapping), field, value, "a JSON object")
        return value
    if dataclasses.is_dataclass(kind):
        return value if type(value) is kind else _record(kind, value, f"{field}.")
    return _number(kind, value, field) if kind in (int, float) else _plain(kind, value, field)


def _tuple(kinds: tuple[Any, ...], values: Any, field: str) -> tuple[Any, ...]:
    require(isinstance(values, (list, tuple)), field, values, "a list")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(values)
    require(len(values) == len(kinds), field, values, f"a list of {len(kinds)}")
    pairs = enumerate(zip(kinds, values, strict=True))
    return tuple(_value(kind, value, f"{field}[{index}]") for index, (kind, value) in pairs)


def _number(kind: type[int | float], value: Any, field: str) -> int | float:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:
        number = math.inf
    if kind is float:
        require(math.isfinite(number), field, value, "a finite number")
        return number
    # int64 holds every whole number that this program writes.
    is_whole = number.is_integer() and -(2**63) <= int(value) < 2**63
    require(is_whole, field, value, "a whole number")
    return int(value)


def _plain(kind: type, value: Any, field: str) -> Any:
    require(isinstance(value, kind), field, value, "a string" if kind is str else "true or false")
    if kind is str:
        # In names of files and classes, bytes that are not UTF-8 appear as surrogates of this form.
        is_text = not _FOREIGN_SURROGATE.search(value)
        require(is_text, field, value, "a string without unpaired surrogates")
    return value
