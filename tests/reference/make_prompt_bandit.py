"""Posteriors of scores from duels, by PyTorch's LBFGS and its automatic Hessian.

Usage: make_prompt_bandit.py OUTPUT
  OUTPUT/<case>.safetensors   features [N, D]; duels [M, 3] of first, second, outcome; ridge []; means [N]; deviations [N];
                              next [2], the prompts of the next duel at an exploration of 1.5
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

EXPLORATION = 1.5


def prepared(features):
    centred = features - features.mean(0)
    return centred / centred.square().sum(1).mean().sqrt()


def fitted(x, outcomes, ridge):
    """Mode and precision of the posterior over weights."""

    def loss(weights):
        u = x @ weights
        return F.binary_cross_entropy_with_logits(u, outcomes, reduction="sum") + ridge / 2 * weights.square().sum()

    weights = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], lr=1, max_iter=2000, tolerance_grad=1e-13, tolerance_change=0,
                                  line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(weights)
        value.backward()
        return value

    optimizer.step(closure)
    weights = weights.detach()
    for _ in range(3):  # LBFGS stops at about 1e-8
        gradient = torch.autograd.functional.jacobian(loss, weights)
        weights = weights - torch.linalg.solve(torch.autograd.functional.hessian(loss, weights), gradient)
    return weights, torch.autograd.functional.hessian(loss, weights)


def make_case(name, count, width, num_duels, ridge, output):
    torch.manual_seed(len(name))
    features = torch.randn(count, width, dtype=torch.float64) * 3 + 7
    duels = []
    for i in range(num_duels):
        first, second = torch.randperm(count)[:2].tolist()
        outcome = 0.5 if i % 5 == 4 else torch.rand(()).item() if i % 3 == 2 else float(torch.rand(()) < 0.6)
        duels.append((first, second, outcome))
    rows = prepared(features)
    x = torch.stack([rows[a] - rows[b] for a, b, _ in duels])
    weights, precision = fitted(x, torch.tensor([o for _, _, o in duels], dtype=torch.float64), ridge)
    means = rows @ weights
    deviations = (rows * torch.linalg.solve(precision, rows.T).T).sum(1).sqrt()
    first = means.argmax().item()
    seen = ridge * torch.eye(width, dtype=torch.float64) + x.T @ x
    gaps = rows - rows[first]
    bounds = means + EXPLORATION * (gaps * torch.linalg.solve(seen, gaps.T).T).sum(1).sqrt()
    bounds[first] = -torch.inf
    save_file({"features": features, "duels": torch.tensor(duels, dtype=torch.float64),
               "ridge": torch.tensor(ridge, dtype=torch.float64), "means": means, "deviations": deviations,
               "next": torch.tensor([first, bounds.argmax().item()])}, output / f"{name}.safetensors")


output = pathlib.Path(sys.argv[1])
output.mkdir(parents=True, exist_ok=True)
make_case("narrow", 12, 3, 30, 1.0, output)
make_case("wide", 9, 40, 25, 0.3, output)  # more features than prompts
make_case("weak_prior", 7, 7, 60, 1e-3, output)
make_case("one_duel", 5, 4, 1, 2.0, output)
