"""Short binary codes of vectors, by fully connected layers: one that ITQ fits, or those trained.

    vector -> length 1 -> layer, ReLU, ..., layer -> a bit for each number, 1 where it is above 0

N vectors, D numbers in each.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.errors import UsageError

_BLOCK_NUMBERS = 2**22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BinaryCoder:
    """What turns vectors into codes.

    Attributes:
        weights: (out, in) float32 of each layer, first to last.
        biases: (out,) float32 of each.
    """

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """The numbers before the first layer, D, and after each; the last is the bits of a code."""
        return (self.weights[0].shape[1], *(len(bias) for bias in self.biases))

    def is_same(self, other: "BinaryCoder") -> bool:
        """Return whether both give the same codes, number by number."""
        return self.widths == other.widths and all(
            np.array_equal(one, another)
            for one, another in zip(
                self.weights + self.biases, other.weights + other.biases, strict=True
            )
        )

    def codes(self, vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return the codes of (N, D) vectors, (N, bits / 8); those of no direction have any.

        Bit n is in byte n // 8, the lowest first, as FAISS's binary indexes have it, and
        `numpy.unpackbits` with `bitorder="little"`.
        """
        codes = np.empty((len(vectors), self.widths[-1] // 8), np.uint8)
        num_at_once = max(1, _BLOCK_NUMBERS // self.widths[0])
        for start in range(0, len(vectors), num_at_once):
            with np.errstate(invalid="ignore"):  # of vectors that are not finite
                numbers = vectors[start : start + num_at_once].astype(np.float32)
                lengths = np.sqrt(np.einsum("nd,nd->n", numbers, numbers))
                numbers /= np.where(lengths > 0, lengths, 1)[:, None]
                layers = zip(self.weights, self.biases, strict=True)
                for number, (weight, bias) in enumerate(layers):
                    numbers = (np.maximum(numbers, 0) if number else numbers) @ weight.T + bias
            packed = np.packbits(numbers > 0, axis=1, bitorder="little")
            codes[start : start + len(packed)] = packed
        return codes


def can_be_fitted(bits: int, num_vectors: int, dimension: int) -> bool:
    """Return whether there are enough vectors and numbers for codes of so many bits."""
    return bits < min(num_vectors, dimension + 1)


def check_bits(bits: int, num_vectors: int, dimension: int) -> None:
    """Refuse codes of more bits than can be fitted.

    Raises:
        UsageError: saying how many vectors and numbers it takes.
    """
    if not can_be_fitted(bits, num_vectors, dimension):
        raise UsageError(
            f"codes of {bits} bits need more than {bits} vectors of at least {bits} numbers, the "
            f"index has {num_vectors:,} of {dimension:,}; take fewer bits, or index more "
            "photographs"
        )
