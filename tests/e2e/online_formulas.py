"""The losses of online objectives, written out from their papers on traced tensors (online_traces.py).

Each takes a dict of tensors of one micro-step, B groups of k members over S steps in fp64, and the run's parameters,
and gives the micro-step's loss.
"""

import torch

FORMULAS = {}


def formula(name):
    def register(function):
        FORMULAS[name] = function
        return function

    return register


def policy_gradient(x, params):
    """PPO's surrogate on means over elements (DDPO, arXiv 2305.13301)."""
    clip, limit = params["clip"], params["advantage_clip"]
    advantage = x["advantage"].clamp(-limit, limit)[:, :, None]
    ratio = torch.exp(x["log_prob"] - x["log_prob_old"])
    return torch.maximum(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - clip, 1 + clip)).mean()


@formula("ddpo")
@formula("dance-grpo")
def ddpo(x, params):
    return policy_gradient(x, params)


@formula("flow-grpo")
def flow_grpo(x, params):
    """The public code's KL of a flow's step leaves the step's size out of the variance."""
    return policy_gradient(x, params) + params["kl_weight"] * (x["kl"] * x.get("step_size", 1)).mean()


@formula("grpo-guard")
def grpo_guard(x, params):
    """arXiv 2510.22319: ratios centred by the step's KL and on the scale of its noise, steps weighing alike."""
    clip, limit = params["clip"], params["advantage_clip"]
    advantage = x["advantage"].clamp(-limit, limit)[:, :, None]
    ratio = torch.exp((x["log_prob"] - x["log_prob_old"] + x["kl_old"]) * x["std"])
    loss = torch.maximum(-advantage * ratio, -advantage * torch.clamp(ratio, 1 - clip, 1 + clip))
    return (loss / x["step_size"]).mean()


@formula("d3po")
@formula("spo")
def d3po(x, params):
    """arXiv 2311.13231; SPO (arXiv 2406.04314) is the same on steps from one common state."""
    ratio = torch.exp(x["log_prob"] - x["log_prob_ref"]).clamp(1 - params["clip"], 1 + params["clip"])
    logit = params["kappa"] * (ratio[:, 0].log() - ratio[:, 1].log())
    return -torch.nn.functional.logsigmoid(logit).mean()


@formula("prdp")
def prdp(x, params):
    """arXiv 2402.08714: sums over elements and steps, all pairs of a group, the larger of two squared errors."""
    now, old = (params["num_elements"] * (x[name] - x["log_prob_ref"]) for name in ("log_prob", "log_prob_old"))
    near = torch.minimum(torch.maximum(now, old - params["clip"]), old + params["clip"])
    losses = []
    for i in range(now.shape[1]):
        for j in range(i):
            wanted = (x["reward"][:, i] - x["reward"][:, j]) / params["kappa"]
            errors = [(r[:, i].sum(1) - r[:, j].sum(1) - wanted) ** 2 for r in (now, near)]
            losses.append(torch.maximum(*errors))
    return torch.stack(losses).mean()


def normalised_error(clean, latents):
    residual = (clean - latents).flatten(2)
    return residual.square().mean(dim=2) / residual.abs().mean(dim=2).clamp(min=1e-5).detach()


@formula("diffusion-nft")
def diffusion_nft(x, params):
    """arXiv 2509.16117, with the clean latents that predictions imply."""
    beta, limit, old = params["kappa"], params["advantage_clip"], x["denoised_old"]
    good = x["advantage"].clamp(-limit, limit) / (2 * limit) + 0.5
    towards = normalised_error(beta * x["denoised"] + (1 - beta) * old, x["latents"])
    away = normalised_error((1 + beta) * old - beta * x["denoised"], x["latents"])
    return (limit / beta * (good * towards + (1 - good) * away) + params["kl_weight"] * x["drift"]).mean()


@formula("longalign")
def longalign(x, params):
    """arXiv 2410.11817: half of what is missing in the mean score, moved to keep its scale."""
    return 0.5 * (1 - x["score"].mean()) - 0.09 * (1 - params["weight"])
