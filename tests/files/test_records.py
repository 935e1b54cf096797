"""Records: what is written is read, and anything else is an error that says so."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files import records
from alexnet_deploy.files.records import (
    LATER,
    Matching,
    Within,
    check_fields,
    json_object,
    plain_fields,
    read_record,
    require,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    FORMAT: ClassVar[int] = 3

    share: Annotated[float, Within(0, below=1)]
    low: int
    high: int

    def __post_init__(self) -> None:
        check_fields(self)
        require(self.low <= self.high, "low", self.low, f"at most high, {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    FORMAT: ClassVar[int] = 1

    count: Annotated[int, Within(1, 999)]
    factor: float
    is_set: bool
    name: Annotated[str, Within(1, 20)]
    code: Annotated[str, Matching("[0-9a-f]{4}")] | None
    kind: Literal["plain", "fancy"]
    pair: tuple[int, float]
    words: tuple[str, ...]
    inner: Inner | None
    free: Mapping[str, Any]
    added: int = field(default=7, metadata=LATER)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text() | st.just("caf\udce9.jpg")  # a name of a file that is not UTF-8
PLAIN = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
INNER = st.builds(
    lambda share, bounds: Inner(share=share, low=min(bounds), high=max(bounds)),
    st.floats(0, 1, exclude_max=True),
    st.tuples(WHOLE, WHOLE),
)
OUTER = st.builds(
    Outer,
    count=st.integers(1, 999),
    factor=NUMBERS,
    name=st.text(min_size=1, max_size=20),
    code=st.none() | st.from_regex("[0-9a-f]{4}", fullmatch=True),
    pair=st.tuples(WHOLE, NUMBERS),
    words=st.lists(TEXTS, max_size=3).map(tuple),
    inner=st.none() | INNER,
    free=st.dictionaries(st.text(), PLAIN, max_size=3),
    added=st.integers(6, 8),
)
EXAMPLE = Outer(
    count=5,
    factor=2.0,
    is_set=True,
    name="x",
    code="00ff",
    kind="plain",
    pair=(1, 2.5),
    words=("a", "b"),
    inner=Inner(share=0.5, low=1, high=2),
    free={"a": [1, None]},
)


def fields_of(record: Outer) -> dict[str, Any]:
    fields = {"format": 1, **plain_fields(record)}
    if fields["inner"] is not None:
        fields["inner"]["format"] = 3
    plain: dict[str, Any] = json.loads(json.dumps(fields))
    return plain


def read(content: str | bytes) -> Outer:
    return read_record(Outer, content, "a.json", "make it again")


@given(OUTER)
def test_what_is_written_is_read(record: Outer) -> None:
    assert read(json.dumps(fields_of(record))) == record
    assert read(json.dumps(fields_of(record), ensure_ascii=True).encode()) == record


VALUES = PLAIN | st.sampled_from(
    [math.nan, math.inf, -math.inf, 2**70, 10**400, True, 1, 1.0, "\ud800", "\udc80", [], {}, ""]
)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """Draw a record and its JSON with something dropped, added, replaced or said twice."""
    record = draw(OUTER)
    fields = fields_of(record)
    part = draw(st.sampled_from([fields] + [fields["inner"]] * (record.inner is not None)))
    name = draw(st.sampled_from(list(part)))
    what = draw(st.sampled_from(["drop", "add", "replace", "item", "twice", "huge", "deep", "cut"]))
    if what == "drop":
        del part[name]
    elif what == "add":
        part[draw(st.text())] = draw(VALUES)
    elif what == "item" and isinstance(part[name], list):
        part[name].append(draw(VALUES))
    else:
        part[name] = draw(VALUES) if what == "replace" else "MARK"
    text = json.dumps(fields)
    mark = {
        "twice": f'1, "{name}": 1',
        "huge": "1e400",
        "deep": "[" * 100_000 + "]" * 100_000,
        "cut": "",
    }
    return text.replace('"MARK"', mark.get(what, "null"), 1)


@given(mutations())
def test_a_mutation_is_refused_or_reads_as_one_record(text: str) -> None:
    record, refusal = outcome(text)
    if record is not None:
        assert read(json.dumps(fields_of(record))) == record
        assert fields_of(record) == json.loads(text)
    else:
        assert refusal.startswith("a.json: ")
        assert refusal.endswith("make it again")
        assert len(refusal) < 400


def outcome(text: str) -> tuple[Outer | None, str]:
    try:
        return read(text), ""
    except IncompatibleFileError as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 0, "count is 0, expected at least 1 and at most 999"),
        ("count", 1000, "count is 1000"),
        ("count", True, "count is True, expected a whole number"),
        ("count", 2.5, "count is 2.5, expected a whole number"),
        ("factor", 10**400, "factor is 1000.*expected a finite number"),
        ("factor", True, "factor is True, expected a finite number"),
        ("is_set", 1, "is_set is 1, expected true or false"),
        ("name", "", "name is '', expected at least 1"),
        ("name", "\ud800", "unpaired surrogates"),
        ("code", "xyz", "code is 'xyz', expected a string like"),
        ("kind", "odd", "kind is 'odd', expected one of plain, fancy"),
        ("pair", [1], r"pair is \[1\], expected a list of 2"),
        ("pair", [1, "x"], r"pair\[1\] is 'x'"),
        ("pair", [2**70, 1], r"pair\[0\] is 1180591620717411303424, expected a whole number"),
        ("words", "ab", "words is 'ab', expected a list"),
        ("free", [], r"free is \[\], expected a JSON object"),
        ("inner", 5, "inner is 5, expected a JSON object"),
        ("inner", {"format": 3, "share": 1, "low": 1, "high": 1}, "inner.share is 1.0, expected"),
        ("inner", {"format": 3, "share": 0, "low": 2, "high": 1}, "inner.low is 2, expected at mo"),
        ("inner", {"format": 3, "share": 0, "low": 2}, "inner.high is missing"),
        ("other", 1, "'other' is unknown, expected count, factor"),
        ("format", "1", "format is '1', expected a whole number"),
    ],
)
def test_an_error_names_the_field_what_came_and_what_was_expected(
    name: str, value: object, message: str
) -> None:
    text = json.dumps(fields_of(EXAMPLE) | {name: value})
    with pytest.raises(IncompatibleFileError, match=rf"^a\.json: damaged \(.*{message}.*restore"):
        read(text)


def test_another_format_is_no_damage() -> None:
    with pytest.raises(IncompatibleFileError, match=r"^a\.json: format is 2, .*reads 1; update"):
        read(json.dumps({"format": 2, "new": "field"}))
    inner = {"format": 4}
    with pytest.raises(IncompatibleFileError, match=r"inner\.format is 4, .*reads 3; update"):
        read(json.dumps(fields_of(EXAMPLE) | {"inner": inner}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 1}', "'a' occurs twice"),
        ('{"a": {"b": NaN}}', "'NaN' is not a finite number"),
        ('{"a": [-1e999]}', "'-1e999' is not a finite number"),
        ('{"a": ' * 33 + "1" + "}" * 33, "nested more than 32 levels"),
        ("[" * 100_000, "recursion"),
        ("[]", "not a JSON object"),
        (b"\xff", "utf-8"),
        ("\ufeff{}", "BOM"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
    ids=range(9),
)
def test_what_json_leaves_open_is_closed(text: str | bytes, message: str) -> None:
    with pytest.raises(IncompatibleFileError, match=message):
        json_object(text, "a.json", "make it again")


def test_a_later_field_is_left_out_while_it_has_its_default() -> None:
    """A file of an earlier version is read, and its record has that file's JSON."""
    assert "added" not in fields_of(EXAMPLE)
    assert read(json.dumps(fields_of(EXAMPLE))).added == 7
    changed = dataclasses.replace(EXAMPLE, added=8)
    assert fields_of(changed)["added"] == 8
    assert read(json.dumps(fields_of(changed))) == changed


def test_a_key_that_comes_twice_among_very_many_is_found() -> None:
    keys = [f'"{number}": 0' for number in range(200_000)]
    with pytest.raises(IncompatibleFileError, match="'199999' occurs twice"):
        json_object(f"{{{', '.join([*keys, keys[-1]])}}}", "a.json", "make it again")


def test_json_within_another_file_has_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_BYTES", 4)
    assert json_object("{  }", "a model's metadata", "make it again") == {}
    with pytest.raises(IncompatibleFileError, match="longer than 4 bytes"):
        json_object("{   }", "a model's metadata", "make it again")
