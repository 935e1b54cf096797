"""The forms that vectors are kept in, and what each makes of their distances.

A `Form` is judged by `retrieval`; those that compress are in `index`. N vectors of D numbers, M of
them in a sample.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.inference.retrieval_figures import Distances

FittedForm = Callable[[NDArray[np.float16]], Distances]
"""From vectors (N, D) to the distances among what is kept of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form that vectors are kept in.

    Attributes:
        name: for people.
        num_bytes: what it keeps of a vector of D numbers.
        fit: fits it to a sample, (M, D) float16.
        rank: directions that `fit` finds in the sample, of which M - 1 and D are the most; 0 for a
            form that needs no sample.
    """

    name: str
    num_bytes: Callable[[int], int]
    fit: Callable[[NDArray[np.float16]], FittedForm]
    rank: int = 0


def cosine_distances(vectors: NDArray[np.float16]) -> Distances:
    """Rank by cosine similarity, which is 0 for a vector of zeros."""
    unit = unit_rows(vectors)
    return lambda queries: -(unit[queries] @ unit.T).astype(np.float32)


def l2_distances(vectors: NDArray[np.floating]) -> Distances:
    """Rank by Euclidean distance."""
    wide = vectors.astype(np.float64)
    squares = np.einsum("nd,nd->n", wide, wide)
    return lambda queries: (squares - 2 * (wide[queries] @ wide.T)).astype(np.float32)


def unit_rows(vectors: NDArray[np.float16]) -> NDArray[np.float64]:
    """Return the vectors scaled to length 1, (N, D); zeros stay zeros."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    wide /= np.maximum(lengths, np.finfo(np.float64).tiny)
    return wide


EXACT_FORMS = (
    Form(name="cosine", num_bytes=lambda d: 2 * d, fit=lambda _: cosine_distances),
    Form(name="L2", num_bytes=lambda d: 2 * d, fit=lambda _: l2_distances),
)
"""Every number of the vector, as an index keeps it: float16."""
