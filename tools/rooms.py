"""Print the package structure as a layered import graph: rooms, floors, arrows, loops.

    python tools/rooms.py [CHECKOUT]

A room is a package of `alexnet_deploy/`, a top-level module of it, `training/` or `tools/`. An
arrow goes from a room to one that it imports from, function-level imports included. A room is one
floor above the highest that it imports from; rooms that import each other share a floor.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path


def main() -> None:
    """Print the rooms, the highest floor first, and the counts."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    arrows = arrows_of(root if root.is_dir() else root.parents[1])
    loops = [{a, b} for a in arrows for b in arrows[a] if a < b and a in arrows[b]]
    floors = floors_of(arrows)
    for floor in sorted(set(floors.values()), reverse=True):
        print(f"{floor:3}  {', '.join(sorted(r for r in floors if floors[r] == floor))}")
    print(
        f"{len(arrows)} rooms, {max(floors.values())} floors, {sum(map(len, arrows.values()))} "
        f"arrows, {len(loops)} loops {loops or ''}"
    )


def arrows_of(root: Path) -> dict[str, set[str]]:
    """Return the rooms of a checkout, each with those that it imports from."""
    arrows: dict[str, set[str]] = {}
    for folder in ("alexnet_deploy", "training", "tools"):
        for path in (root / folder).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            room = _room(".".join(parts))
            if parts != ("alexnet_deploy", "__init__"):  # the front door, not a room
                arrows.setdefault(room, set()).update(set(_imported(path)) - {room})
    return {room: there & set(arrows) for room, there in arrows.items()}


def floors_of(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each room, from 1."""
    floors = dict.fromkeys(arrows, 1)
    for _ in arrows:  # enough for the longest path; a loop rises no higher
        for room, there in arrows.items():
            below = [floors[other] for other in there if room not in arrows[other]]
            floors[room] = 1 + max(below, default=0)
    return floors


def _room(module: str) -> str:
    first, _, rest = module.partition(".")
    return f"{first}.{rest.split('.')[0]}" if first == "alexnet_deploy" and rest else first


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (_room(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "alexnet_deploy":
            yield from (_room(f"alexnet_deploy.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield _room(node.module)


if __name__ == "__main__":
    main()
