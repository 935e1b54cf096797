"""How the photographs of an index are decoded, and so its queries."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.index_runner import REQUEST, Colour, Runners, save, search, update


def test_queries_are_decoded_as_the_index_is(tmp_path: Path, runners: Runners) -> None:
    """A new one is made scaled, and keeps that; one that says exact stays exact."""
    large = io.BytesIO()
    seen: dict[str, set[Colour]] = {}
    noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), np.uint8)
    Image.fromarray(noise).save(large, "JPEG")
    photos = save(tmp_path / "photos" / "a.jpg", large.getvalue()).parent
    for name, request in (
        ("new", REQUEST),
        ("exact", dataclasses.replace(REQUEST, decode="exact")),
    ):
        update(tmp_path / name, photos, request=request)
        save(photos / f"{name}.jpg", large.getvalue() + name.encode())
        update(tmp_path / name)
        list(search(tmp_path / name, large.getvalue() + b"a query"))
        seen[name] = {*runners.colours}
        runners.colours.clear()
        (photos / f"{name}.jpg").unlink()
    assert [len(colours) for colours in seen.values()] == [1, 1]
    assert seen["new"] != seen["exact"]
