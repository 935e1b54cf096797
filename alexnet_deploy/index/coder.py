"""A trained coder at work: the binary codes of vectors, by the network in a `coder_file`.

N vectors, D numbers in each; bits is how many a code has.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.files.records import damaged, plain_fields, read_record
from alexnet_deploy.graph.coder_file import CODE, CoderFile, read_coder
from alexnet_deploy.index.manifest import VectorSpace
from alexnet_deploy.runtimes.onnxruntime_session import open_session

_AGAIN = "fit a coder to vectors of this space"
_ROWS_PER_CALL = 1024
"""Bounds the memory: 16 MB of float32 where D is 4096."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoderRecord:
    """What a coder's file says of itself.

    Attributes:
        space: of the vectors that it was fitted to.
    """

    FORMAT: ClassVar[int] = 1

    space: VectorSpace

    def to_json(self) -> str:
        """Return the text that the file holds."""
        return json.dumps({"format": self.FORMAT, **plain_fields(self)})

    @classmethod
    def of(cls, file: CoderFile, source: str) -> Self:
        """Read the record of a file, which `source` names in messages.

        Raises:
            IncompatibleFileError: it is damaged, or does not fit the file's matrices.
        """
        record = read_record(cls, file.record, f"{source}: its record", _AGAIN)
        stated, came = record.space, (file.layer, file.weights[0].shape[1])
        if came != (stated.layer, stated.dimension):
            reason = f"its record is of {stated.layer}, {stated.dimension}, its graph of {came}"
            raise damaged(source, reason, _AGAIN)
        return record


class Coder:
    """Makes codes; `open_coder` opens one.

    Attributes:
        bits: of a code.
    """

    def __init__(self, file: CoderFile, source: str, *, threads: int | None = None) -> None:
        """Load the network.

        Args:
            file: as read.
            source: its path, for messages.
            threads: that compute; None for all cores.
        """
        self.bits = len(file.biases[-1])
        self._layer = file.layer
        self._session: Any = open_session(
            file.to_bytes(), source, remedy="export the coder again", threads=threads
        )

    def codes(self, vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return the codes of vectors, whatever their length; of zeros, that of no direction.

        Args:
            vectors: (N, D) float16 or float32, finite.

        Returns:
            (N, bits / 8) uint8: bit i of a code is bit i % 8, counted from the lowest, of its byte
            i // 8, as FAISS compares them.
        """
        packed = np.empty((len(vectors), self.bits // 8), np.uint8)
        for start in range(0, len(vectors), _ROWS_PER_CALL):
            rows = vectors[start : start + _ROWS_PER_CALL].astype(np.float32, copy=False)
            (logits,) = self._session.run([CODE], {self._layer: rows})
            packed[start : start + len(rows)] = np.packbits(logits > 0, axis=1, bitorder="little")
        return packed


def open_coder(path: Path, space: VectorSpace, *, threads: int | None = None) -> Coder:
    """Open a coder for vectors of `space`.

    Args:
        path: of an `.onnx` file that `coder_file` wrote; it may be a stranger's.
        space: that of the index.
        threads: that compute; None for all cores.

    Raises:
        UsageError: there is no such file.
        IncompatibleFileError: it is no coder, or one of another vector space.
    """
    try:
        file = read_coder(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path}: no such file; give a coder, an .onnx file") from error
    own = CoderRecord.of(file, str(path)).space
    for field in dataclasses.fields(VectorSpace):
        fitted, here = getattr(own, field.name), getattr(space, field.name)
        if fitted != here:
            raise IncompatibleFileError(
                f"{path}: was fitted to vectors whose {field.name} is {str(fitted)[:100]}, those "
                f"to be coded have {str(here)[:100]}; {_AGAIN}"
            )
    return Coder(file, str(path), threads=threads)
