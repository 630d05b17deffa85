"""Checks that the names other programs rely on are spelt in the code as the documentation has them."""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent

# file of the code -> names it must contain between quotes
CONTRACTS = {
    "tools/align.cpp": """--model --objective --output --adapter --rank --lora-alpha --target-modules --beta --kappa
        --objective-args --reference --steps --epochs --batch-size --accumulate --lr --lr-schedule --warmup --max-grad-norm
        --weight-decay --optimizer --random-crop --gradient-checkpointing --ema --cache --no-cache --save-every --keep --resume
        --sample-every --sample-prompts --eval-every --trace --trace-steps --dry-run --list-objectives""",
    "tools/preference_options.cpp": """--data --reference-model --init-lora --resolution --no-hflip --empty-prompt-rate
        --eval-data""",
    "tools/convert.cpp": "--model --lora --output --format",
    "tools/cache.cpp": "--model --reference-errors",
    "tools/filter.cpp": "--input --output --keep",
    "tools/generate.cpp": """--model --prompt --prompts --negative-prompt --num-images --steps --guidance-scale --scheduler
        --height --width --lora --output""",
    "tools/score.cpp": "--reward --input --image --prompt --output --batch-size --workers --resume",
    "tools/synthesize.cpp": "--model --prompts --per-model --reward --aggregate --output",
    "data/parquet_writer.cpp": "prompt images image model seed scores rank",
    "reward_models/ensemble.cpp": "wins mean rank",
    "tools/train_reward.cpp": """--model --from-config --data --output --head --loss --aspects --train --steps --epochs --batch-size
        --lr --resume --test-data""",
    "tools/command.cpp": "--config --device --dtype --seed --threads --log-level --quiet",
    "training/trace.cpp": """latents noise timesteps encoder_hidden_states noisy_latents target prediction error error_ref
        scores label loss grad_norm""",
    "training/align.cpp": "epoch loss lr grad_norm seconds_per_step samples_per_second",
    "losses/metrics.cpp": "accuracy margin error_chosen error_rejected error_chosen_ref error_rejected_ref",
}

problems = []
for name, words in CONTRACTS.items():
    text = (root / name).read_text()
    for word in words.split():
        if not re.search(rf'"(-\w,)?{re.escape(word)}[",]', text):
            problems.append(f"{name}: the contract's name \"{word}\" does not occur")
if problems:
    print("\n".join(problems))
sys.exit(bool(problems))
