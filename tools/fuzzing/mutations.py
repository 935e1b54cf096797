"""Change bytes, JSON and tables as damage, a careless program or an attacker would.

All is drawn from the `random.Random` that is handed in, so a seed gives the same change again.
"""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

MAX_BYTES = 2**20
"""Longest file that a change makes: what is larger takes longer, and finds no more."""
CANARY = "../outside/canary.txt"
"""From the folder of the input to the file that nobody may touch; see `cage`."""

_LENGTHS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_DEPTH = 100_000

# As JSON text, which Python's writer could not write in part.
_ODD_JSON = (
    *("null", "true", "false", "0", "-1", "1", "1e300", "1e-300", "1e400", "NaN", "-Infinity"),
    *("1" + 30 * "0", 5000 * "9", str(2**63), str(-(2**63) - 1), "4294967296", "0.5"),
    *('""', '"\\ud800"', '"\\udcff"', '"\\u0000"', '"\\u001b[31m\\n"', f'"{CANARY}"', '"../.."'),
    *(f'"{"x" * 100_000}"', "[]", "{}", "[[]]", '{"": null}', f"[{'0,' * 10_000}0]"),
    *("[" * _DEPTH + "]" * _DEPTH, '{"a":' * _DEPTH + "0" + "}" * _DEPTH, "[" * 20 + "]" * 20),
)
_ODD_NAMES = ('""', '"\\ud800"', '"\\u0000"', '"format"', f'"{"x" * 100_000}"')
_ODD_CELLS = (
    *("NULL", "0", "-1", "1", "0.5", "1e300", "9e999", str(2**63 - 1), str(-(2**63)), "''"),
    *(
        "'text'",
        "CAST(X'00' AS TEXT)",
        "X''",
        "X'00'",
        "X'ff'",
        "zeroblob(900000)",
        "zeroblob(2000000)",
    ),
    *("CAST(X'eda080' AS TEXT)", f"CAST('{CANARY}' AS BLOB)", "CAST('/etc/passwd' AS BLOB)"),
    *("X'2F'", "X'2F6100'", "CAST('/' || hex(zeroblob(3000)) AS BLOB)", "randomblob(32)"),
)


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to sixteen changes; half of them near its beginning or its end."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if data:
            data = rng.choice(_CHANGES)(data, _place(data, rng), rng)[:MAX_BYTES]
    return data


def _place(data: bytes, rng: random.Random) -> int:
    near = min(len(data), rng.choice((16, 64, 512)))
    position = rng.choice((rng.randrange(near), len(data) - 1 - rng.randrange(near)))
    return rng.choice((position, rng.randrange(len(data))))


def _chunk(data: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    return data[start : start + rng.choice((1, 4, 16, 64, 1024))]


def _flip(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _set(data: bytes, at: int, rng: random.Random) -> bytes:
    return (
        data[:at] + bytes([rng.choice((0, 0x7F, 0x80, 0xFF, rng.randrange(256)))]) + data[at + 1 :]
    )


def _truncate(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at]


def _splice(data: bytes, at: int, rng: random.Random) -> bytes:
    chunk = _chunk(data, rng)
    return data[:at] + chunk + data[at + rng.choice((0, len(chunk))) :]


def _repeat(data: bytes, at: int, rng: random.Random) -> bytes:
    chunk = data[at : at + rng.choice((1, 4, 16, 64, 1024))]
    return data[:at] + chunk * rng.choice((2, 3, 100, 1000)) + data[at:]


def _drop(data: bytes, at: int, rng: random.Random) -> bytes:
    return data[:at] + data[at + rng.choice((1, 2, 4, 16, 512)) :]


def _blow_up(data: bytes, at: int, rng: random.Random) -> bytes:
    """Write a large number where a length may be."""
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_LENGTHS).to_bytes(8, "little")[:size]
    return data[:at] + rng.choice((value, value[::-1])) + data[at + size :]


def _erase(data: bytes, at: int, rng: random.Random) -> bytes:
    size = min(len(data) - at, rng.choice((4, 64, 4096)))
    return data[:at] + rng.choice((b"\0", b"\xff")) * size + data[at + size :]


_CHANGES: Sequence[Callable[[bytes, int, random.Random], bytes]] = (
    *(_flip, _set, _truncate, _splice, _repeat, _drop, _blow_up, _blow_up, _erase),
)


def changed_json(value: Any, rng: random.Random) -> str:
    """Return `value` as JSON text, with one to three values or names replaced."""
    tree = json.loads(json.dumps(value))
    pieces: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        holders = [holder for holder in _holders(tree) if len(holder)]
        if not holders:
            break
        # Few values are on the top levels, and most of what is read first.
        holder = rng.choice((holders[0], rng.choice(holders)))
        key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        mark = f"@{len(pieces)}@"
        action = rng.randrange(10)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, dict):
            pieces[mark] = rng.choice(_ODD_NAMES)
            holder[mark] = holder.pop(key)
        elif action == 2:
            holder[key] = rng.choice(_list_values(tree))
        elif action in (3, 4):
            holder[key] = _resized(holder[key], rng)
        else:
            pieces[mark] = rng.choice(_ODD_JSON)
            holder[key] = mark
    text = json.dumps(tree)
    for mark, piece in pieces.items():
        text = text.replace(f'"{mark}"', piece)
    if rng.random() < 0.1 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]  # every name twice
    return text


def _holders(value: Any) -> list[Any]:
    """Return all objects and lists in `value`, the outermost first."""
    found = [value] if isinstance(value, (dict, list)) else []
    for holder in found:
        inner = holder.values() if isinstance(holder, dict) else holder
        found += [item for item in inner if isinstance(item, (dict, list))]
    return found


def _list_values(tree: Any) -> list[Any]:
    values = [
        item
        for holder in _holders(tree)
        for item in (holder.values() if isinstance(holder, dict) else holder)
        if not isinstance(item, (dict, list))
    ]
    return values or [None]


def _resized(value: Any, rng: random.Random) -> Any:
    """Return a value of the same type and another size, or of another type and the same text."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        others = [-value, value + 1, value * 1000, value / 3, str(value), [value], 2**31 - value]
        return rng.choice(others)
    if isinstance(value, str):
        return rng.choice([value * 2000, value[:-1], value.upper(), [value], {value: value}])
    if isinstance(value, list):
        return rng.choice([value * 300, value[:-1], [value], dict(enumerate(value))])
    return rng.choice([list(value), [value], {**value, "other": 1}])


def changed_rows(columns: Sequence[tuple[str, str]], rng: random.Random) -> str:
    """Return SQL that gives cells other values, types included, or drops and copies rows.

    Args:
        columns: (table, column) of each cell that there is.
        rng: decides.
    """
    statements = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        table, column = rng.choice(list(columns))
        row = f"(SELECT rowid FROM {table} LIMIT 1 OFFSET {rng.randrange(4)})"
        where = rng.choice((f" WHERE rowid = {row}", f" WHERE rowid = {row}", ""))
        kind = rng.randrange(12)
        if kind == 0:
            statements.append(f"DELETE FROM {table}{where}")
        elif kind == 1:
            value = rng.choice((f"-{column}", f"{column} + 1", f"{column} * 1000003"))
            statements.append(f"UPDATE OR REPLACE {table} SET {column} = {value}{where}")
        elif kind == 2:
            value = f"CAST({column} AS {rng.choice(('TEXT', 'BLOB', 'REAL', 'INTEGER'))})"
            statements.append(f"UPDATE OR REPLACE {table} SET {column} = {value}{where}")
        else:
            value = rng.choice(_ODD_CELLS)
            statements.append(f"UPDATE OR REPLACE {table} SET {column} = {value}{where}")
    return "; ".join(statements)
