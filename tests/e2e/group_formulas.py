"""Objectives on single items and on lists (objective_formulas.py)."""

import math

import torch
from objective_formulas import formula
from torch import sigmoid
from torch.nn.functional import logsigmoid


@formula("sft")
def sft(b, p):
    return b.error[:, 0]


def kto_utility(b, p, is_desirable):
    improvement = b.s[:, 0]
    offset = improvement.mean().clamp(min=0).detach()
    return 1 - sigmoid((2 * is_desirable - 1) * p["kappa"] * (improvement - offset))


@formula("kto")
def kto(b, p):
    return kto_utility(b, p, b.label[:, 0])


@formula("kto-threshold")
def kto_threshold(b, p):
    return kto_utility(b, p, (b.rewards[:, 0] > p["threshold"]).double())


@formula("bco-unpaired")
def bco_unpaired(b, p):
    reward = p["kappa"] * b.s[:, 0] - p["delta"]
    return -b.label[:, 0] * logsigmoid(reward) - (1 - b.label[:, 0]) * logsigmoid(-reward)


# ------------------------------------------------------------------------------------------------------------ lists


def places(values):
    """Position of each item, 0 for the largest; equal ones in the order they came in."""
    order = torch.sort(values, descending=True, stable=True).indices.tolist()
    return [order.index(i) for i in range(len(order))]


def per_list(function):
    """A formula from one of a single list: (s, label, rewards, parameters) -> loss."""
    return lambda b, p: torch.stack([function(s, *rest, p) for s, *rest in zip(b.s, b.label, b.rewards)])


def dcg_weighted(s, phi, ranks, kappa):
    gain = 2**phi - 1
    total = 0.0 * s.sum()
    for i in range(len(s)):
        for j in range(len(s)):
            if phi[i] > phi[j]:
                discounts = 1 / math.log(2 + ranks[i]) - 1 / math.log(2 + ranks[j])
                total = total - (gain[i] - gain[j]) * abs(discounts) * logsigmoid(kappa * (s[i] - s[j]))
    return total


@formula("rankdpo")
@per_list
def rankdpo(s, phi, rewards, p):
    return dcg_weighted(s, phi, places(phi), p["kappa"])


@formula("lambdarank")
@per_list
def lambdarank(s, phi, rewards, p):
    return dcg_weighted(s, phi, places(s), p["kappa"])


@formula("plackett-luce")
@per_list
def plackett_luce(s, phi, rewards, p):
    best_first = p["kappa"] * s[torch.sort(phi, descending=True, stable=True).indices]
    return -sum(best_first[j] - torch.log(torch.exp(best_first[j:]).sum()) for j in range(len(s) - 1))


@formula("list-net")
@per_list
def list_net(s, phi, rewards, p):
    return -(torch.softmax(phi / p["temperature"], 0) * torch.log(torch.softmax(p["kappa"] * s, 0))).sum()


@formula("ranklist")
@per_list
def ranklist(s, phi, rewards, p):
    order = torch.sort(phi, descending=True, stable=True).indices
    z, preference = p["kappa"] * s[order], phi[order]
    total = 0.0 * s.sum()
    for stride in range(1, int(p["strides"]) + 1):
        for i in range(len(s) - stride):
            if preference[i] > preference[i + stride]:
                total = total - logsigmoid(z[i] - z[i + stride])
    return total


@formula("dpo-all-pairs")
@per_list
def dpo_all_pairs(s, phi, rewards, p):
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if phi[i] > phi[j]]
    return -sum(logsigmoid(p["kappa"] * (s[i] - s[j])) for i, j in pairs) / len(pairs)


@formula("capo")
@per_list
def capo(s, phi, rewards, p):
    k = len(s)
    promised = [[sigmoid(p["scale"] * (rewards[i] - rewards[j])) for j in range(k) if j != i] for i in range(k)]
    wins = [sum(shares) / (k - 1) for shares in promised]
    best_first = torch.sort(rewards, descending=True, stable=True).indices
    best, worst = best_first[0], best_first[-1]
    return (wins[best] - wins[worst] - p["kappa"] * (s[best] - s[worst])) ** 2


@formula("dgpo")
def dgpo(b, p):
    centred = b.rewards - b.rewards.mean(dim=1, keepdim=True)
    advantage = centred / ((centred**2).mean(dim=1, keepdim=True).sqrt() + 1e-4)
    weight = sigmoid((advantage * p["kappa"] * (b.error - b.error_ref)).mean(dim=1)).detach()
    return weight * (advantage * b.error).mean(dim=1)
