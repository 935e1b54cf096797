"""Queries on their way from what was given to the vectors that are searched for.

D numbers in a vector, R orientations.
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.index.results import Query
from alexnet_deploy.index.segments import float16_vector
from alexnet_deploy.photographs.sources import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PhotographQuery:
    """A query as it was given, and as the threads take it."""

    query: Query
    source: ImageSource


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorQuery:
    """A query with its vectors, rounded as stored ones are, or with the reason why not.

    Attributes:
        query: as it was given.
        sha256: of its file, where the index has it.
        vectors: (R, D), R is 1 without rotations; None if it failed.
        error: the reason, if it failed.
    """

    query: Query
    sha256: bytes | None = None
    vectors: NDArray[np.float16] | None = None
    error: str | None = None


def rounded(query: Query, activations: NDArray[np.floating[Any]], layer: str) -> VectorQuery:
    """Return a query with its vectors; `activations` are (R, ...), of any float type."""
    rows = []
    with np.errstate(over="ignore"):  # found when they are rounded
        wide = activations.astype(np.float32)
    for one in wide:
        row, error = float16_vector(one, layer)
        if row is None:
            return VectorQuery(query=query, error=error)
        rows.append(row)
    return VectorQuery(query=query, vectors=np.stack(rows))


def is_vector(query: object) -> TypeGuard[NDArray[np.floating[Any]]]:
    """Return whether a query is a vector, of whatever length."""
    return isinstance(query, np.ndarray) and query.ndim == 1 and query.dtype.kind == "f"
