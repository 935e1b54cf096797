"""Vectors as `.npy`, with the record of how they were made and the path of each row beside them."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.files.output_files import write_together
from alexnet_deploy.files.path_text import path_fields
from alexnet_deploy.files.regular_files import read_file
from alexnet_deploy.inference.activations import STORED
from alexnet_deploy.inference.partial_rows import RowGroup
from alexnet_deploy.inference.provenance import Provenance


def write_npy(files: tuple[Path, ...], made: Provenance, groups: Iterable[RowGroup]) -> None:
    """Write the files, which appear when all are whole.

    Args:
        files: one array per layer, then the record, last the paths; replaced if they exist.
        made: the record of the vectors.
        groups: the rows.

    Raises:
        OutputError: one cannot be written.
    """
    with write_together(files) as opened:
        *arrays, record, names = opened
        for file, layer in zip(arrays, made.layers, strict=True):
            header = {
                "descr": STORED[made.dtype].str,
                "fortran_order": False,
                "shape": (made.num_rows, *layer.shape),
            }
            np.lib.format.write_array_header_1_0(file, header)
        for group in groups:
            for file, array in zip(arrays, group.arrays, strict=True):
                file.write(array.data)
            for path, error in zip(group.paths, group.errors, strict=True):
                fields = path_fields(path) | ({} if error is None else {"error": error})
                names.write(f"{json.dumps(fields)}\n".encode("ascii"))
        record.write(f"{made.to_json()}\n".encode("ascii"))


def check_no_other(record: Path) -> None:
    """Refuse to replace a file that is no record of vectors, whatever it holds.

    Raises:
        IncompatibleFileError: there is one.
    """
    otherwise = "move it away, or choose another output"
    try:
        content = json.loads(read_file(record, otherwise))
        is_own = content["tool"] == "alexnet-deploy"
    except (FileNotFoundError, NotADirectoryError):
        return
    except (ValueError, KeyError, TypeError, RecursionError):
        is_own = False
    if not is_own:
        raise IncompatibleFileError(
            f"{record}: is there, and is no record of vectors, which would replace it; {otherwise}"
        )
