"""Runs the programs that are compared, without network and GPU."""

import os
import subprocess
import sys
import time


def execute(command, output=subprocess.DEVNULL, threads=None):
    """Seconds and largest resident bytes of a command that must succeed; its standard output goes to `output`."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return time.monotonic() - began, usage.ru_maxrss * 1024
