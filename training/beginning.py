"""The network that a run starts from: new, from a checkpoint, or where the run left off."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_deploy.model.checkpoints import FACTORED, Checkpoint
from alexnet_deploy.model.spec import ModelSpec, preset_spec
from training.augmentation import ColourComponents
from training.checkpointing import RunState
from training.colour import ColourStatistics
from training.initialization import initial_weights
from training.recipes import Recipe
from training.weights import after_dropout, trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A network before the first step of a run, merged, on the CPU.

    Attributes:
        spec: includes the preprocessing that the weights are trained for.
        weights: under the package's names, scaled for the recipe's form of dropout.
        mean_image: (S, S, 3) float32 RGB, or None for the spec's channel means.
        components: of the training pixels' colours.
        old_layers: layers from a checkpoint that lacked some of the classes.
        num_new_classes: classes whose rows of fc8 are not from that checkpoint.
        init: the checkpoint it is fine-tuned from, if any: its "identity", and as "provenance"
            what it says of its own origin, including licence and attribution.
    """

    spec: ModelSpec
    weights: Mapping[str, torch.Tensor]
    mean_image: NDArray[np.float32] | None
    components: ColourComponents
    old_layers: frozenset[str] = frozenset()
    num_new_classes: int = 0
    init: Mapping[str, object] | None = None

    def effective(self, recipe: Recipe) -> dict[str, object]:
        """Return a recipe's fields, with the input scale that the network really uses.

        A network from a checkpoint keeps its preprocessing, whatever the recipe says.
        """
        stds = self.spec.preprocessing.std
        return dataclasses.asdict(recipe) | {
            "input_std": stds[0] if len(set(stds)) == 1 else list(stds),
            "subtract_mean_image": self.mean_image is not None,
        }


def dropout_scale(recipe: Recipe) -> float:
    """Return the factor on fc6's and fc7's outputs at inference (section 4.2)."""
    return 1 - recipe.dropout_rate if recipe.dropout == "paper" else 1.0


def new_network(
    classes: tuple[str, ...], colour: ColourStatistics, recipe: Recipe, seed: int
) -> Beginning:
    """Initialize a network for `classes`, its inputs centred on the training photographs."""
    spec = preset_spec("paper", num_classes=len(classes), labels=classes)
    preprocessing = dataclasses.replace(
        spec.preprocessing, mean=tuple(colour.channel_mean.tolist()), std=(recipe.input_std,) * 3
    )
    spec = dataclasses.replace(spec, preprocessing=preprocessing)
    return Beginning(
        spec=spec,
        weights=initial_weights(spec, recipe, seed),
        mean_image=colour.mean_image if recipe.subtract_mean_image else None,
        components=_components(colour),
    )


def from_checkpoint(
    checkpoint: Checkpoint,
    classes: tuple[str, ...],
    colour: ColourStatistics,
    recipe: Recipe,
    seed: int,
) -> Beginning:
    """Start from trained weights of any network of the package.

    Rows of fc8 go with their labels, wherever those stand among `classes`; rows of labels that the
    checkpoint lacks, or has more than once, are initialized. The checkpoint's preprocessing is
    kept, since its weights were trained for it; factored fc6 and fc7 are multiplied out.
    """
    spec = dataclasses.replace(
        checkpoint.spec, num_classes=len(classes), labels=classes, provenance={}
    )
    weights = trainable(dense_arrays(checkpoint), dropout_scale(recipe), after_dropout(spec))
    labels = checkpoint.spec.labels
    kept = {name: labels.index(name) for name in classes if labels.count(name) == 1}
    old: frozenset[str] = frozenset()
    if labels != classes:
        fresh = initial_weights(spec, recipe, seed)
        for array in ("fc8.weight", "fc8.bias"):
            for row, name in enumerate(classes):
                if name in kept:
                    fresh[array][row] = weights[array][kept[name]]
            weights[array] = fresh[array]
    if len(kept) < len(classes):
        old = frozenset(name.split(".")[0] for name in weights) - {"fc8"}
    return Beginning(
        spec=spec,
        weights=weights,
        mean_image=mean_image_of(checkpoint.arrays),
        components=_components(colour),
        old_layers=old,
        num_new_classes=len(classes) - len(kept),
        init={
            "identity": checkpoint.identity,
            "provenance": dict(checkpoint.spec.provenance),
        },
    )


def from_state(state: RunState, recipe: Recipe) -> Beginning:
    """Continue where a run left off."""
    arrays = {name: state.arrays[name] for name in state.spec.array_shapes()}
    return Beginning(
        spec=state.spec,
        weights=trainable(arrays, dropout_scale(recipe), after_dropout(state.spec)),
        mean_image=mean_image_of(state.arrays),
        components=state.components,
        old_layers=state.old_layers,
        init=cast("Mapping[str, object] | None", state.spec.provenance.get("init")),
    )


def dense_arrays(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """Return weights and biases as float32, with factored fc6 and fc7 multiplied out."""
    arrays = {}
    for name in checkpoint.spec.array_shapes():
        layer, kind = name.split(".")
        if kind == "weight" and layer in FACTORED:
            arrays[name] = checkpoint.dense(layer, np.dtype(np.float32))
        else:
            arrays[name] = checkpoint.arrays[name].astype(np.float32)
    return arrays


def mean_image_of(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    """Return a checkpoint's mean image as (S, S, 3) float32, if it has one."""
    if "mean_image" not in arrays:
        return None
    return np.ascontiguousarray(arrays["mean_image"].astype(np.float32).transpose(1, 2, 0))


def _components(colour: ColourStatistics) -> ColourComponents:
    vectors, stds = colour.principal_components()
    return ColourComponents(
        vectors=torch.from_numpy(vectors).float(), stds=torch.from_numpy(stds).float()
    )
