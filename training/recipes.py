"""Recipes: the hyperparameters of training, as data.

`PAPER` is Krizhevsky et al. 2012; README.md lists where its text and code differ and which is
followed. `MODERN` trains the same network as one would today on a few thousand photographs. One
loop runs both. Section numbers are the paper's.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.files.records import Within, check_fields, require

Initialization = Literal["gaussian_2012", "he"]
Crop = Literal["positions", "resized"]
Schedule = Literal["plateau", "one_cycle"]
Dropout = Literal["paper", "inverted"]
UpdateRule = Literal["paper", "adamw"]
_Count = Annotated[int, Within(1, 2**31)]
_Positive = Annotated[float, Within(above=0, most=1e38)]  # float32 ends there
_NotNegative = Annotated[float, Within(0, 1e6)]
_BelowOne = Annotated[float, Within(0, below=1)]
# Fields that would be ignored with any other choice than this.
_ONLY_WITH = {
    "min_crop_area": ("crop", "resized"),
    "max_rotation": ("crop", "resized"),
    "second_momentum": ("update_rule", "adamw"),
    "patience": ("schedule", "plateau"),
    "num_divisions": ("schedule", "plateau"),
    "warm_up_epochs": ("schedule", "one_cycle"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train a network.

    Attributes:
        name: for messages and the checkpoint's provenance.
        num_epochs: passes over the training photographs.
        batch_size: photographs per step (mini-batch), on both devices together.
        initialization: "gaussian_2012" (section 5, with .03 in conv3-5 as in the 2012 code), or
            "he": variance 2 / fan-in, biases 0.
        subtract_mean_image: subtract the mean of each pixel (section 2), not of each channel.
        input_std: grey levels per unit of the network's input.
        crop: "positions": 224 px windows at 33x33 positions (section 4.1, and the code's count);
            "resized": windows of `min_crop_area` or more and aspect ratio 3:4 to 4:3, resized.
        min_crop_area: smallest share of the picture's area, for "resized"; at most 0.75, the
            largest share that a 3:4 window can have.
        max_rotation: largest rotation of a window in degrees, either way, for "resized".
        colour_jitter: brightness, contrast and saturation are each multiplied by a factor drawn
            from 1 - this to 1 + this.
        colour_std: standard deviation of the factors of the principal components (section 4.1).
        dropout: "paper": nothing is rescaled in training, outputs are halved at inference
            (section 4.2); "inverted": what is kept is doubled in training.
        dropout_rate: share of fc6's and fc7's outputs that is set to 0.
        label_smoothing: probability mass spread evenly over all classes.
        mixup: parameter of the Beta distribution from which the mixing weight of two pictures is
            drawn (Zhang et al. 2018, arXiv 1710.09412); 0 for no mixing.
        learning_rate: the highest, for weights.
        bias_rate_factor: factor on that rate for biases.
        update_rule: "paper" (section 5) or "adamw"; see optimizers.py.
        momentum: of the update rule; AdamW's beta1.
        second_momentum: AdamW's beta2.
        weight_decay: of weights; biases have none.
        schedule: "plateau": divided by ten when the validation error stalls (section 5);
            "one_cycle": up linearly for `warm_up_epochs`, then down to 0 along a cosine.
        patience: epochs without a lower validation error that count as a stall.
        num_divisions: number of times that "plateau" divides the rate.
        warm_up_epochs: of "one_cycle".
    """

    name: str
    num_epochs: _Count
    batch_size: _Count
    initialization: Initialization
    subtract_mean_image: bool
    input_std: _Positive
    crop: Crop
    min_crop_area: Annotated[float, Within(above=0, most=1)] = 1.0
    max_rotation: _NotNegative = 0.0
    colour_jitter: _BelowOne = 0.0
    colour_std: _NotNegative
    dropout: Dropout
    dropout_rate: _BelowOne
    label_smoothing: _BelowOne
    mixup: _NotNegative = 0.0
    learning_rate: _Positive
    bias_rate_factor: _Positive
    update_rule: UpdateRule
    momentum: _BelowOne
    second_momentum: _BelowOne = 0.0
    weight_decay: _NotNegative
    schedule: Schedule
    patience: Annotated[int, Within(0, 2**31)] = 0
    num_divisions: Annotated[int, Within(0, 300)] = 0  # of a rate, by ten, in float64
    warm_up_epochs: _NotNegative = 0.0

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with.

        Raises:
            IncompatibleFileError: naming the field, its value and what was expected.
        """
        check_fields(self)
        fits = self.crop != "resized" or self.min_crop_area <= 0.75
        require(fits, "min_crop_area", self.min_crop_area, "at most 0.75, with crop=resized")
        # Halving is exact in binary, so storing weights scaled for inference loses nothing.
        halved = self.dropout == "inverted" or self.dropout_rate == 0.5
        expected = "0.5, the only rate of the paper's form of dropout"
        require(halved, "dropout_rate", self.dropout_rate, expected)
        waits = self.patience >= 1 or self.schedule != "plateau"
        require(waits, "patience", self.patience, "1 or more, since the schedule is plateau")
        remembers = self.second_momentum > 0 or self.update_rule != "adamw"
        expected = "more than 0, since the rule is adamw"
        require(remembers, "second_momentum", self.second_momentum, expected)

    def with_options(self, options: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with some fields replaced.

        Raises:
            UsageError: an unknown field, a value that cannot be trained with, or one that would
                be ignored given the others.
        """
        for name in options:
            if name == "name" or name not in Recipe.__annotations__:
                fields = ", ".join(list(Recipe.__annotations__)[1:])
                raise UsageError(f"recipe {self.name} has no field {name!r}; it has {fields}")
        try:
            recipe = dataclasses.replace(self, **options)
        except IncompatibleFileError as error:
            raise UsageError(f"recipe {self.name}: {error}") from error
        for name, (chooser, choice) in _ONLY_WITH.items():
            came = getattr(recipe, chooser)
            if name in options and came != choice:
                raise UsageError(
                    f"recipe {self.name}: {name} has no effect with {chooser}={came}; leave it "
                    f"out, or set {chooser}={choice} too"
                )
        return recipe


PAPER = Recipe(
    name="paper",
    num_epochs=90,  # section 5: "roughly 90 cycles"
    batch_size=128,  # section 5
    initialization="gaussian_2012",
    subtract_mean_image=True,  # section 2
    input_std=1.0,  # section 2: "raw RGB values", 0..255
    crop="positions",
    colour_std=0.1,  # section 4.1
    dropout="paper",
    dropout_rate=0.5,  # section 4.2
    label_smoothing=0.0,
    learning_rate=0.01,  # section 5
    bias_rate_factor=2.0,  # the 2012 code; lowered with the weights' rate, unlike there
    update_rule="paper",
    momentum=0.9,  # section 5
    weight_decay=0.0005,  # section 5
    schedule="plateau",
    patience=5,  # the paper watched by eye; its code's first division came at epoch 25 of 90
    num_divisions=3,  # section 5: "reduced three times prior to termination"
)

# No rotation, jitter or mixup here: over the last 12 of the 30 epochs they made no difference
# beyond chance on a held-out tenth of Caltech-101's training photographs.
MODERN = Recipe(
    name="modern",
    num_epochs=30,
    batch_size=64,
    initialization="he",
    subtract_mean_image=False,
    input_std=58.0,
    crop="resized",
    min_crop_area=0.35,
    colour_std=0.1,
    dropout="inverted",
    dropout_rate=0.5,
    label_smoothing=0.1,
    learning_rate=0.0003,
    bias_rate_factor=1.0,
    update_rule="adamw",
    momentum=0.9,
    second_momentum=0.99,
    weight_decay=0.02,
    schedule="one_cycle",
    warm_up_epochs=2.0,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({"paper": PAPER, "modern": MODERN})
