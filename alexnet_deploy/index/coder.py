"""A trained coder at work: the binary codes of vectors, by the network in a `coder_file`.

N vectors, D numbers in each; bits is how many a code has.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.files.records import damaged, plain_fields, read_record
from alexnet_deploy.graph.coder_file import CoderFile, read_coder
from alexnet_deploy.index.binary_codes import BinaryCoder
from alexnet_deploy.index.manifest import VectorSpace

_AGAIN = "fit a coder to vectors of this space"


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


def coder_of(file: CoderFile) -> BinaryCoder:
    """Return what a coder's file holds, at work."""
    return BinaryCoder(weights=tuple(file.weights), biases=tuple(file.biases))


def open_coder(path: Path, space: VectorSpace) -> BinaryCoder:
    """Open a coder for vectors of `space`.

    Args:
        path: of an `.onnx` file that `coder_file` wrote; it may be a stranger's.
        space: that of the index.

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
    return coder_of(file)
