"""What `prepare` leaves beside the pictures that it made: reading it back, and writing it.

`prepared.json` is one object: "format", "size" (px), "quality", "classes" (name to count of
pictures), the fields of `colour.save_statistics`, and "skipped", a list of photographs that could
not be read: "path" below the source, "path_base64" where it is not UTF-8, and "reason".
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.output_files import atomic_write
from alexnet_deploy.files.path_text import path_fields
from alexnet_deploy.photographs.class_folders import ClassFolders
from training.colour import ColourStatistics, load_statistics, save_statistics
from training.pictures import Failure

FORMAT_VERSION = 1
PREPARED_NAME = "prepared.json"
UNFINISHED_NAME = "unfinished.txt"
"""There while `prepare` runs, and after it was stopped."""

_AGAIN = "run prepare again, it goes on where it can"


def write_prepared(
    folder: Path,
    *,
    size: int,
    quality: int,
    counts: Mapping[str, int],
    statistics: ColourStatistics,
    skipped: Sequence[Failure],
) -> None:
    """Write `mean_image.npy`, then `prepared.json`.

    Args:
        folder: that holds the pictures.
        size: S, px.
        quality: of the JPEGs.
        counts: pictures of each class.
        statistics: of all pictures.
        skipped: photographs without a picture, their paths relative to the source.

    Raises:
        OutputError: a file cannot be written.
    """
    fields: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "size": size,
        "quality": quality,
        "classes": dict(counts),
        **save_statistics(statistics, folder),
        "skipped": [{**path_fields(one.path), "reason": one.reason} for one in skipped],
    }
    with atomic_write(folder / PREPARED_NAME) as file:
        file.write(json.dumps(fields, indent=1).encode() + b"\n")


def read_prepared(folders: ClassFolders) -> ColourStatistics | None:
    """Return the statistics that `prepare` stored beside the photographs it made.

    Args:
        folders: all of a folder, as `find_class_folders` returns them.

    Returns:
        None where there is no `prepared.json`: an ordinary folder of classes.

    Raises:
        IncompatibleFileError: `prepare` was interrupted there, its files are damaged or of
            another format, or the photographs are no longer those that it counted.
    """
    root = folders.root
    if (root / UNFINISHED_NAME).exists():
        raise IncompatibleFileError(f"{root}: prepare was interrupted or is running; {_AGAIN}")
    path = root / PREPARED_NAME
    try:
        fields = json.loads(path.read_text("utf-8"))
        version, size, noted = fields["format"], fields["size"], fields["classes"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise IncompatibleFileError(f"{path}: cannot be read ({error!r}); {_AGAIN}") from error
    if version != FORMAT_VERSION:
        raise IncompatibleFileError(
            f"{path}: has format {version!r}, this version reads {FORMAT_VERSION}; prepare into "
            "another folder"
        )
    counts = np.bincount(folders.labels, minlength=len(folders.classes)).tolist()
    found = dict(zip(folders.classes, counts, strict=True))
    if found != noted:
        raise IncompatibleFileError(
            f"{root}: {_difference(found, noted)}; do not add or remove photographs there by "
            f"hand: change the source, then {_AGAIN}"
        )
    statistics = load_statistics(root, fields)
    if statistics.mean_image.shape != (size, size, 3) or statistics.num_photographs != len(folders):
        raise IncompatibleFileError(
            f"{path}: a mean image of shape {statistics.mean_image.shape} over "
            f"{statistics.num_photographs} photographs, expected {(size, size, 3)} over "
            f"{len(folders)}; {_AGAIN}"
        )
    return statistics


def _difference(found: dict[str, int], noted: Any) -> str:
    """Say how the photographs differ from those that were noted."""
    if not isinstance(noted, dict) or found.keys() != noted.keys():
        return f"has {len(found)} classes that are not the ones in {PREPARED_NAME}"
    name = next(name for name in found if found[name] != noted[name])
    return f"{found[name]} photographs in {name!r}, {noted[name]} in {PREPARED_NAME}"
