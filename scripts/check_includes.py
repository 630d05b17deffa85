"""Checks every #include "folder/..." against the arrows of docs/architecture.md."""

import pathlib
import re
import subprocess
import sys

# folder -> folders it may include (besides itself)
ALLOWED = {
    "core": [],
    "images": ["core"],
    "kernels": ["core"],
    "layouts": ["core"],
    "nn": ["core", "kernels", "layouts"],
    "unet": ["core", "kernels", "nn"],
    "vae": ["core", "kernels", "nn"],
    "text": ["core", "kernels", "nn"],
    "schedulers": ["core", "kernels"],
    "losses": ["core", "kernels"],
    "shapes": ["core"],
    "pipelines": ["core", "kernels", "nn", "unet", "vae", "text", "schedulers"],
    "data": ["core", "images", "vae", "text", "shapes"],
    "reward_models": ["core", "images", "kernels", "nn", "text", "shapes"],
    "training": ["core", "images", "kernels", "nn", "unet", "vae", "text", "schedulers", "losses", "shapes", "pipelines",
                 "data", "reward_models"],
}
ALLOWED["tools"] = sorted(ALLOWED) + ["training"]
ALLOWED["tests"] = sorted(ALLOWED) + ["tools"]
ALLOWED["benchmarks"] = sorted(ALLOWED)

root = pathlib.Path(__file__).resolve().parent.parent
files = subprocess.check_output(["git", "ls-files", "*.h", "*.cpp", "*.cu"], cwd=root, text=True).split()
problems = []
for name in files:
    folder = name.split("/")[0]
    if folder not in ALLOWED:
        problems.append(f"{name}: folder '{folder}' has no place in scripts/check_includes.py")
        continue
    for number, line in enumerate((root / name).read_text().splitlines(), 1):
        match = re.match(r'\s*#include "([a-z_]+)/', line)
        if match and match[1] != folder and match[1] not in ALLOWED[folder]:
            problems.append(f"{name}:{number}: {folder} must not include {match[1]}")
if problems:
    print("\n".join(problems))
sys.exit(bool(problems))
