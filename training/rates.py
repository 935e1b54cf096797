"""Learning-rate schedules: the paper's plateau (section 5), and one cycle."""

import math
from dataclasses import dataclass
from typing import Annotated

from alexnet_deploy.files.records import Within
from training.recipes import Recipe


def one_cycle(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the rate of a step (from 0): linear warm-up, then half a cosine down to 0."""
    total = recipe.num_epochs * steps_per_epoch
    warm_up = min(recipe.warm_up_epochs * steps_per_epoch, total / 2)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / (warm_up + 1)
    share = (step - warm_up) / (total - warm_up)
    return recipe.learning_rate * (1 + math.cos(math.pi * share)) / 2


@dataclass(slots=True, kw_only=True)
class Plateau:
    """Divide the rate by ten when the validation error (0..1) stalls; the fields are its state.

    Stalls count only once the network is better than guessing: with the paper's initialization
    the loss stays at ln K for hundreds of steps, and a lower rate would keep it there.
    """

    lowest_error: Annotated[float, Within(0, 1)] = 1.0
    num_stalled_epochs: Annotated[int, Within(0)] = 0
    num_divisions: Annotated[int, Within(0, 300)] = 0  # float64 ends at 10**308

    def rate(self, recipe: Recipe) -> float:
        """Return the learning rate of the next epoch."""
        return recipe.learning_rate / float(10**self.num_divisions)

    def update(self, error: float, guessing_error: float, recipe: Recipe) -> None:
        """Take account of the validation error of a completed epoch.

        Args:
            error: top-1 error on the validation photographs, 0..1.
            guessing_error: the error of always predicting the most frequent class.
            recipe: sets the patience and the number of divisions.
        """
        if error < self.lowest_error:
            self.lowest_error, self.num_stalled_epochs = error, 0
        elif self.lowest_error < guessing_error:
            self.num_stalled_epochs += 1
        stalled = self.num_stalled_epochs >= recipe.patience
        if stalled and self.num_divisions < recipe.num_divisions:
            self.num_stalled_epochs = 0
            self.num_divisions += 1
