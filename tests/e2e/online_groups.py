"""Checks objectives on data that train on the policy's own samples: online_groups.py BINARY WORLD CASE.

Errors, losses and gradients are recomputed as for given data (trace_checks.py); here, that groups are what rewards say.
"""

import group_formulas  # noqa: F401
import pair_formulas  # noqa: F401
import torch
from objective_runs import Runs, listed
from support import check, encoded_captions, main
from trace_checks import near

PROMPTS = ["a red circle", "a blue square above a green circle", "a cyan triangle", "a yellow square"]
COMMON = dict(prompts_per_round=4, inner_epochs=2, group_size=3, online_steps=3, online_guidance=3.0, eta=0.5)

CASES = {
    "pairs": [("diffusion-dpo", {}), ("simpo", dict(model="v_prediction", eta=0, loser_weight=0.7)),
              ("dpo-ipo", dict(timestep_range="100:600", logit_weighting="min-snr", sft_weight=0.2))],
    "lists": [("rankdpo", dict(group_size=4)), ("plackett-luce", {}), ("capo", {})],
    "pictures": [("kto", dict(prompts_per_round=4, inner_epochs=1)), ("sft", {})],
}


def wanted_labels(data, reward):
    """[B, k] from the rewards of groups, which come best first."""
    if data == "list":
        beaten = (reward[:, :, None] > reward[:, None]).sum(dim=2)
        return beaten / (reward.shape[1] - 1)
    return torch.tensor([1.0, 0.0])[: reward.shape[1]].expand_as(reward)


def check_groups(trace, data, options):
    reward, label = trace["reward"], trace["label"]
    near(trace["scores"], reward, "scores")
    size = {"pair": 2, "list": options.get("group_size", COMMON["group_size"])}.get(data, 1)
    check(reward.shape[1] == size, f"groups of {reward.shape[1]}")
    if data == "unpaired":
        check(sorted(label.flatten().tolist()) == [0.0] * 4 + [1.0] * 4, f"labels {label.flatten().tolist()}")
        # A prompt's best picture against its worst: in any order, but of all prompts together.
        check(reward[label == 1].sum() > reward[label == 0].sum(), "the desirable pictures are worth less")
        return
    check((reward[:, :-1] >= reward[:, 1:]).all(), "items do not come best first")
    check(size == 1 or (reward[:, 0] > reward[:, -1]).all(), "nothing to choose from in a group")
    near(label, wanted_labels(data, reward), "labels")


def check_draws(traces, model, has_two_epochs):
    """Prompts are those of the file, some of them dropped; a group has other draws in the next inner epoch."""
    known = encoded_captions(model, [*PROMPTS, ""])
    num_dropped = 0
    for trace in traces:
        distance = (trace["encoder_hidden_states"][:, None] - known[None]).abs().amax(dim=(2, 3))
        check(distance.amin(dim=1).max() < 1e-4, "a group has the states of no prompt")
        num_dropped += (distance.argmin(dim=1) == len(PROMPTS)).sum()
        twins = [(i, j) for i in range(len(trace["latents"])) for j in range(i)
                 if torch.equal(trace["latents"][i], trace["latents"][j])]
        check(bool(twins) == has_two_epochs, f"groups that are trained on twice in a step: {twins}")
        for i, j in twins:
            check(not torch.equal(trace["noise"][i], trace["noise"][j]), f"groups {i} and {j} are one draw")
    check(0 < num_dropped < sum(len(trace["latents"]) for trace in traces), f"{num_dropped} captions were dropped")


def run_case(name):
    def case(prefusion, world, scratch):
        (scratch / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
        runs = Runs(prefusion, world, scratch)
        for objective, changes in CASES[name]:
            data = listed(prefusion)[objective]["data"]
            traces = runs.trace(objective, **COMMON | dict(prompts=scratch / "prompts.txt") | changes)
            for trace in traces:
                runs.expect(objective, check_groups, trace, data, changes)
            model = world / "models" / changes.get("model", "epsilon")
            runs.expect(objective, check_draws, traces, model, (COMMON | changes)["inner_epochs"] == 2)
        runs.finish()

    return case


def refusals(prefusion, world, scratch):
    """What a sample cannot stand for, and what such runs cannot have, is refused by name before anything is made."""
    (scratch / "prompts.txt").write_text("a red circle\n")
    options = dict(model=world / "models" / "epsilon", prompts=scratch / "prompts.txt", steps=1, output=scratch / "out")
    for changes, expected in [
        (dict(objective="diffusion-dpo", data=world), "leave --data out"),
        (dict(objective="diffusion-dpo", reference="cached"), "--reference cached"),
        (dict(objective="diffusion-dpo", sde_window=2), "leave --sde-window out"),
        (dict(objective="diffusion-dpo", group_size=1), "--group-size must be 2 or more"),
        (dict(objective="diffusion-dpo", auto_kappa=0.2), "--auto-kappa"),
        (dict(objective="diffusion-dpo", curriculum="margin:2"), "--curriculum"),
        (dict(objective="diffusion-dpo", train_text_encoder=True), "--train-text-encoder"),
        (dict(objective="simpo", reference="frozen"), "--reference"),
        (dict(objective="kto", loser_weight=0.5), "loser"),
        (dict(objective="ddim-inpo"), "leave out --prompts"),
        (dict(objective="masked"), "leave out --prompts"),
        (dict(objective="dcpo"), "leave out --prompts"),
        (dict(objective="spin"), "leave out --prompts"),
    ]:
        text = prefusion.run("align", exit_code=2, **options | changes)
        check(expected in text, f"{changes}: {text}")
    check(not (scratch / "out").exists(), "a refused run wrote something")


main({name: run_case(name) for name in CASES} | {"refusals": refusals})
