"""Queries on their way from what was given to the vectors that are searched for.

D numbers in a vector, R orientations.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import UsageError
from alexnet_deploy.index.manifest import VectorSpace
from alexnet_deploy.index.results import Query
from alexnet_deploy.index.segments import float16_vector
from alexnet_deploy.photographs.sources import (
    ImageSource,
    check_image,
    image_source,
    is_image,
    path_of,
)


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


def checked_queries(
    queries: Query | Iterable[Query], space: VectorSpace
) -> Iterator[PhotographQuery | VectorQuery]:
    """Check the queries of a list at once, those of other iterables as they are taken.

    Raises:
        UsageError: one is neither a photograph nor a vector of `space`.
    """
    several: Any = queries
    if isinstance(queries, np.ndarray) and queries.ndim == 2 and queries.dtype.kind == "f":
        several = list(queries)
    elif is_image(queries) or isinstance(queries, Mapping) or not isinstance(queries, Iterable):
        several = [queries]  # a single query, or something to be refused
    if isinstance(several, (list, tuple)):
        for number, query in enumerate(several):
            _check_query(query, number, space)
    return _sources(several, space)


def _sources(queries: Iterable[Any], space: VectorSpace) -> Iterator[PhotographQuery | VectorQuery]:
    for number, query in enumerate(queries):
        _check_query(query, number, space)
        if _is_vector(query):
            yield rounded(query, query[None], space.layer)
        else:
            source = image_source(query, space.decode)
            yield PhotographQuery(query=path_of(source) or query, source=source)


def _check_query(query: object, number: int, space: VectorSpace) -> None:
    name = f"queries[{number}]"
    if not _is_vector(query):
        check_image(query, name)
    elif query.shape != (space.dimension,):
        raise UsageError(f"{name} is a vector {query.shape}, expected {space.dimension} numbers")


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


def _is_vector(query: object) -> TypeGuard[NDArray[np.floating[Any]]]:
    """Return whether a query is a vector, of whatever length."""
    return isinstance(query, np.ndarray) and query.ndim == 1 and query.dtype.kind == "f"
