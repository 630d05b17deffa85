"""What can be added to every objective of `prefusion align`, and weights of timesteps (objective_formulas.py)."""

import dataclasses
import math

import torch


@dataclasses.dataclass
class Additions:
    """The options, under their names on the command line, and what a run drew for them."""

    loser_weight: float = 1.0
    safe_loser: float | None = None
    sft_weight: float = 0.0
    anchor_weight: float = 0.0
    label_smoothing: float = 0.0
    soft_labels: bool = False
    swap: torch.Tensor | None = None  # [B] bool
    drop_margin: torch.Tensor | None = None  # [B] bool
    error_scale: torch.Tensor | None = None  # [B]
    weights: torch.Tensor | None = None  # [B], of the data and of the timestep together


def exchanged(b, where=None):
    """The roles of a pair exchanged, of all pairs or of some; labels and scores stay with their places."""

    def flipped(value):
        if value is None:
            return None
        if where is None:
            return value.flip(1)
        return torch.where(where.view(-1, *[1] * (value.dim() - 1)), value.flip(1), value)

    names = ("error", "error_ref", "drift", "residual_square", "prediction", "prediction_ref", "target")
    return b.replace(**{name: flipped(getattr(b, name)) for name in names})


def scaled(b, factor):
    """Errors of the given factor [B]: of residuals times its root."""

    def times(value, root=1.0):
        return None if value is None else value * (factor**root).view(-1, *[1] * (value.dim() - 1))

    names = ("error", "error_ref", "drift", "residual_dot", "residual_square")
    squares = {name: times(getattr(b, name)) for name in names}
    linear = {name: times(getattr(b, name), 0.5) for name in ("prediction", "prediction_ref", "target")}
    return b.replace(**squares, **linear)


def chosen_share(b):
    """[B, k]: 1 for item 0 of a pair and for the best of a list; a single item as far as it is desirable."""
    if b.error.shape[1] == 1:
        return b.label
    best = b.label.argmax(dim=1) if b.error.shape[1] > 2 else torch.zeros(len(b.error), dtype=torch.long)
    return torch.nn.functional.one_hot(best, b.error.shape[1]).double()


def with_loser_weight(b, factor):
    if b.error_ref is None:
        weighted = factor * b.error
    else:
        weighted = b.error_ref - factor * b.s
    return b.replace(error=torch.where(chosen_share(b) == 1, b.error, weighted))


def with_safe_loser(b, mu):
    """Diffusion-SDPO: the gradient through the rejected errors is scaled, by one number for the batch."""
    square = b.error if b.residual_square is None else b.residual_square
    chosen = square[:, 0].detach().sum()
    product = b.residual_dot.sum()
    scale = ((1 - mu) * chosen / product).clamp(0, 1) if product > 0 else 1.0
    rejected = b.error[:, 1]
    rejected = rejected.detach() + scale * (rejected - rejected.detach())
    return b.replace(error=torch.stack([b.error[:, 0], rejected], dim=1))


def total_loss(formula, b, p, a):
    """The loss of a micro-batch."""

    def with_safe_items(b):
        if a.safe_loser is not None:
            return with_safe_loser(b, a.safe_loser)
        return with_loser_weight(b, a.loser_weight) if a.loser_weight != 1 else b

    def preference(b):
        return formula(with_safe_items(b), p)

    def soft(b):
        if not a.soft_labels:
            return preference(b)
        probability = b.label[:, 0]
        return probability * preference(b) + (1 - probability) * preference(exchanged(b))

    if a.swap is not None:
        b = exchanged(b, a.swap)
    inside = scaled(b, a.error_scale) if a.error_scale is not None else b
    loss = soft(inside)
    if a.label_smoothing:
        loss = (1 - a.label_smoothing) * loss + a.label_smoothing * soft(exchanged(inside))
    if a.drop_margin is not None:
        loss = torch.where(a.drop_margin, 0.0, loss)
    if a.sft_weight:
        loss = loss + a.sft_weight * (chosen_share(b) * b.error).sum(dim=1)
    if a.anchor_weight:
        loss = loss + a.anchor_weight * b.drift.mean(dim=1)
    return (loss if a.weights is None else a.weights * loss).mean()


def timestep_weight(text, snr, prediction_type):
    """Weights of kohya-ss/sd-scripts (min-snr, debiased, like-epsilon) and of SD3 (sigma-sqrt, cosmap)."""
    name, _, gamma = text.partition(":")
    is_v = prediction_type == "v_prediction"
    sigma = 1 / (1 + snr.sqrt())  # of the flow model with this signal-to-noise ratio, ((1 - t) / t)^2
    if name == "min-snr":
        return snr.clamp(max=float(gamma or 5)) / (snr + 1 if is_v else snr)
    if name == "debiased":
        capped = snr.clamp(max=1000)
        return 1 / (capped + 1) if is_v else 1 / capped.sqrt()
    if name == "like-epsilon":
        return snr / (snr + 1) if is_v else torch.ones_like(snr)
    if name == "sigma-sqrt":
        return sigma**-2.0
    return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))
