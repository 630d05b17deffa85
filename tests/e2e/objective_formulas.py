"""How the formulas of objectives are written: in float64 torch, as papers and public code have them.

A formula takes a Batch and the objective's parameters, and returns the loss of each group [B]. What carries no gradient
is detached, so that backward passes can be recomputed too. pair_formulas.py and group_formulas.py hold them.
"""

import dataclasses

import torch


@dataclasses.dataclass
class Batch:
    """B groups of k items; what an objective does not need may be absent."""

    error: torch.Tensor  # [B, k]
    label: torch.Tensor  # [B, k]
    error_ref: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    drift: torch.Tensor | None = None  # [B, k]
    residual_dot: torch.Tensor | None = None  # [B]
    residual_square: torch.Tensor | None = None  # [B, k], where masks make it other than the error
    prompt_distance: torch.Tensor | None = None  # [B, B]
    prediction: torch.Tensor | None = None  # [B, k, C, H, W], as the following two
    prediction_ref: torch.Tensor | None = None
    target: torch.Tensor | None = None

    @property
    def s(self):
        """How much better the policy models an item than the reference does."""
        return self.error_ref - self.error

    @property
    def rewards(self):
        return self.label if self.scores is None else self.scores

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


FORMULAS = {}


def formula(*names):
    def register(function):
        FORMULAS.update({name: function for name in names})
        return function

    return register
