"""The network that a run starts from: new, from a checkpoint, or where the run left off."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_deploy.errors import Argument, UsageError
from alexnet_deploy.model.checkpoints import FACTORED, Checkpoint, load_checkpoint
from alexnet_deploy.model.spec import ModelSpec, preset_spec
from training.augmentation import ColourComponents
from training.checkpointing import RunState
from training.colour import ColourStatistics
from training.initialization import initial_weights
from training.recipes import Recipe
from training.towers import lrn_of_two_towers
from training.weights import trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A network before the first step of a run, merged, on the CPU.

    Attributes:
        spec: includes the preprocessing that the weights are trained for.
        weights: under the package's names, scaled for the recipe's form of dropout.
        mean_image: (S, S, 3) float32 RGB, or None for the spec's channel means.
        components: of the training pixels' colours.
        old_layers: layers from a checkpoint that was trained on other classes.
        init: the checkpoint it is fine-tuned from, if any: its "identity", and as "provenance"
            what it says of its own origin, including licence and attribution.
    """

    spec: ModelSpec
    weights: Mapping[str, torch.Tensor]
    mean_image: NDArray[np.float32] | None
    components: ColourComponents
    old_layers: frozenset[str] = frozenset()
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


def load_init(path: Path) -> Checkpoint:
    """Read a checkpoint to start from.

    Raises:
        UsageError: there is no such file, it does not have the paper's two towers, or it resizes
            photographs differently from the trainer.
        IncompatibleFileError: it is damaged or not a checkpoint.
    """
    checkpoint = load_checkpoint(path)
    init = Argument("init", str(path))
    try:
        lrn_of_two_towers(checkpoint.spec)
    except UsageError as error:
        raise UsageError(init, ": ", error.message) from error
    expected = preset_spec("paper").preprocessing
    came = checkpoint.spec.preprocessing
    for name in ("resize", "resize_to", "filter"):
        if getattr(came, name) != getattr(expected, name):
            raise UsageError(
                init,
                f": its preprocessing has {name} {getattr(came, name)!r}, the trainer's has "
                f"{getattr(expected, name)!r}; start from another checkpoint, or none",
            )
    return checkpoint


def from_checkpoint(
    checkpoint: Checkpoint,
    classes: tuple[str, ...],
    colour: ColourStatistics,
    recipe: Recipe,
    seed: int,
) -> Beginning:
    """Start from trained weights, with a new fc8 if the classes differ.

    The checkpoint's preprocessing is kept, since its weights were trained for it; factored fc6 and
    fc7 are multiplied out.
    """
    spec = dataclasses.replace(
        checkpoint.spec, num_classes=len(classes), labels=classes, provenance={}
    )
    weights = trainable(dense_arrays(checkpoint), dropout_scale(recipe))
    old: frozenset[str] = frozenset()
    if checkpoint.spec.labels != classes:
        fresh = initial_weights(spec, recipe, seed)
        weights |= {name: fresh[name] for name in ("fc8.weight", "fc8.bias")}
        old = frozenset(name.split(".")[0] for name in weights) - {"fc8"}
    return Beginning(
        spec=spec,
        weights=weights,
        mean_image=mean_image_of(checkpoint.arrays),
        components=_components(colour),
        old_layers=old,
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
        weights=trainable(arrays, dropout_scale(recipe)),
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
