"""Objectives on pairs (objective_formulas.py). Item 0 is the chosen one, item 1 the rejected one."""

import math

import torch
from loss_additions import with_safe_loser
from objective_formulas import formula
from torch import sigmoid
from torch.nn.functional import logsigmoid


def logit(b, p):
    policy = b.error[:, 0] - b.error[:, 1]
    reference = b.error_ref[:, 0] - b.error_ref[:, 1]
    return -p["kappa"] * (policy - reference)


def log_ratios(b, p):
    """What stands for beta * log(policy / reference) of the two items."""
    return p["kappa"] * b.s[:, 0], p["kappa"] * b.s[:, 1]


def smoothed(logits, eps):
    return -(1 - eps) * logsigmoid(logits) - eps * logsigmoid(-logits)



@formula("diffusion-dpo", "spin", "ddim-inpo", "dcpo", "tdpo", "masked", "ppd", "tlpo")
def dpo(b, p):
    return -logsigmoid(logit(b, p))


@formula("sdpo")
def sdpo(b, p):
    return dpo(with_safe_loser(b, p["mu"]), p)


@formula("dpo-ipo")
def ipo(b, p):
    difference = b.s[:, 0] - b.s[:, 1]
    return p["kappa"] ** 2 * (difference - 1 / (2 * p["kappa"])) ** 2


@formula("dpo-hinge")
def hinge(b, p):
    return torch.relu(1 - logit(b, p))


@formula("dpo-smooth")
def conservative(b, p):
    return smoothed(logit(b, p), p["label_smoothing"])


@formula("dpo-robust")
def robust(b, p):
    u, eps = logit(b, p), p["label_smoothing"]
    return (-(1 - eps) * logsigmoid(u) + eps * logsigmoid(-u)) / (1 - 2 * eps)


@formula("dpo-f")
def f_divergence(b, p):
    alpha = p["alpha"]
    functions = {
        "reverse-kl": lambda x: x,
        "forward-kl": lambda x: -torch.exp(-x),
        "jensen-shannon": logsigmoid,
        "alpha": lambda x: torch.exp((alpha - 1) * x) / (alpha - 1),
    }
    chosen, rejected = (functions[p["divergence"]](x / p["scale"]) for x in log_ratios(b, p))
    return -logsigmoid(p["scale"] * (chosen - rejected))


@formula("exo")
def exo(b, p):
    u, eps = logit(b, p), p["label_smoothing"]
    return sigmoid(u) * (logsigmoid(u) - math.log(1 - eps)) + sigmoid(-u) * (logsigmoid(-u) - math.log(eps))


@formula("nca")
def nca(b, p):
    chosen, rejected = log_ratios(b, p)
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


@formula("bco")
def bco(b, p):
    chosen, rejected = log_ratios(b, p)
    return -logsigmoid(chosen - p["delta"]) - logsigmoid(-(rejected - p["delta"]))


@formula("apo-zero")
def apo_zero(b, p):
    chosen, rejected = log_ratios(b, p)
    return 1 - sigmoid(chosen) + sigmoid(rejected)


@formula("apo-down")
def apo_down(b, p):
    return sigmoid(log_ratios(b, p)[0]) + 1 - sigmoid(logit(b, p))


@formula("sppo")
def sppo(b, p):
    half = 1 / (2 * p["kappa"])
    return p["kappa"] ** 2 * ((b.s[:, 0] - half) ** 2 + (b.s[:, 1] + half) ** 2)


@formula("aot")
def aot(b, p):
    """A place of the sorted batch counts for the group whose policy gap or chosen item stands there."""
    if p["pairing"] == "paired":
        upper = b.error[:, 1] - b.error[:, 0]
        lower = b.error_ref[:, 1] - b.error_ref[:, 0]
    else:
        upper, lower = b.s[:, 0], b.s[:, 1]
    upper, places = upper.sort(stable=True)
    loss = smoothed(p["kappa"] * (upper - lower.sort().values), p["label_smoothing"])
    return torch.empty_like(loss).scatter(0, places, loss)


@formula("discopop")
def discopop(b, p):
    u = logit(b, p)
    mix = sigmoid(u / p["tau"])
    return -(1 - mix) * logsigmoid(u) + mix * torch.exp(-u)


@formula("odpo")
def odpo(b, p):
    return -logsigmoid(logit(b, p) - p["alpha"] * (b.rewards[:, 0] - b.rewards[:, 1]))


@formula("poly-dpo")
def poly_dpo(b, p):
    probability = sigmoid(logit(b, p))
    return -torch.log(probability) + p["alpha"] * (1 - probability)


@formula("linear")
def linear(b, p):
    gap = b.error[:, 0] - b.error[:, 1]
    gap_ref = b.error_ref[:, 0] - b.error_ref[:, 1]
    weight = (p["kappa"] * (gap - gap_ref) + 0.5).clamp(p["eta"], 1 - p["eta"]).detach()
    return weight * gap


@formula("snpo")
def snpo(b, p):
    policy = p["kappa"] * (b.error[:, 1] - b.error[:, 0])
    reference = p["kappa"] * (b.error_ref[:, 1] - b.error_ref[:, 0])
    mixed = p["lambda"] * torch.exp(-policy) + (1 - p["lambda"]) * torch.exp(-reference)
    return -logsigmoid(-torch.log(mixed) - reference)


@formula("dspo")
def dspo(b, p):
    beta = 2 * p["kappa"]
    pull = (beta * (1 - sigmoid(logit(b, p))))[:, None, None, None]
    score = b.prediction[:, 0] - b.target[:, 0] - pull * (b.prediction[:, 0] - b.prediction_ref[:, 0])
    return (score**2).mean(dim=(1, 2, 3))


@formula("smpo")
def smpo(b, p):
    """Both factors of the logit change sign with the order of the items: it does not matter which is called chosen."""
    probability = torch.softmax(b.scores / p["score_range"], dim=1)[:, 0]
    return -logsigmoid(p["gamma"] * (2 * probability - 1) * logit(b, p))


@formula("rpo-cross")
def rpo_cross(b, p):
    losses = []
    for i in range(len(b.error)):
        weights = torch.exp(-b.prompt_distance[i] / p["tau"])
        terms = [-logsigmoid(p["kappa"] * (b.s[i, 0] - rejected)) for rejected in b.s[:, 1]]
        losses.append(sum(weight * term for weight, term in zip(weights / weights.sum(), terms)))
    return torch.stack(losses)


# ---------------------------------------------------------------------------------------- pairs, without a reference


@formula("simpo")
def simpo(b, p):
    return -logsigmoid(p["kappa"] * (b.error[:, 1] - b.error[:, 0]) - p["gamma"])


@formula("cpo")
def cpo(b, p):
    return -logsigmoid(p["kappa"] * (b.error[:, 1] - b.error[:, 0])) + p["alpha"] * b.error[:, 0]


@formula("orpo")
def orpo(b, p):
    return b.error[:, 0] - p["weight"] * logsigmoid(p["K"] * (b.error[:, 1] - b.error[:, 0]))


@formula("mapo")
def mapo(b, p):
    z = p["snr"] * b.error
    bounded = z / (torch.exp(z) - 1)
    return b.error[:, 0] - p["weight"] * logsigmoid(p["T"] * (bounded[:, 0] - bounded[:, 1]))
