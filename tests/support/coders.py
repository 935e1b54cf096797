"""Coders without training: matrices of random numbers."""

import itertools

import numpy as np

from alexnet_deploy.graph.coder_file import CoderFile
from alexnet_deploy.index.coder import CoderRecord
from alexnet_deploy.index.manifest import VectorSpace, vector_space
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.photographs.pixels import EXACT


def space_of(layer: str = "fc7", identity: str = "a network") -> VectorSpace:
    return vector_space(
        preset_spec("paper"),
        identity=identity,
        layer=layer,
        precision="fp32",
        decode=EXACT,
        ranges=None,
    )


def random_coder(space: VectorSpace, bits: int = 64, hidden: int = 8) -> CoderFile:
    rng = np.random.default_rng(bits)
    widths = (space.dimension, hidden, bits)
    return CoderFile(
        layer=space.layer,
        weights=[
            rng.standard_normal((after, before), np.float32)
            for before, after in itertools.pairwise(widths)
        ],
        biases=[rng.standard_normal(width, np.float32) for width in widths[1:]],
        record=CoderRecord(space=space).to_json(),
    )
