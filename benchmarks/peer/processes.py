"""Runs the programs that are compared, without network and GPU."""

import atexit
import os
import signal
import statistics
import subprocess
import sys
import time


def start(command, output, threads):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.DEVNULL, env=environment)


def spread(ratios):
    """Median, quartiles and number, for a table."""
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}, 1"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} .. {high:.2f}), {len(ratios)}"


def execute(command, output=subprocess.DEVNULL, threads=None):
    """Seconds and largest resident bytes of a command that must succeed; its standard output goes to `output`."""
    began = time.monotonic()
    process = start(command, output, threads)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return time.monotonic() - began, usage.ru_maxrss * 1024


class Stepped:
    """A command that runs one piece of its work at a time and is stopped in between: so two programs share a machine in turns
    of seconds, and one whose speed changes from minute to minute is the same to both."""

    def __init__(self, command, threads=None):
        self.command = " ".join(map(str, command))
        self.process = start(command, subprocess.PIPE, threads)
        atexit.register(self.process.kill)  # a stopped one would stay for ever
        os.kill(self.process.pid, signal.SIGSTOP)

    def advance(self, count):
        """Runs until `count` more lines of its output are there: (seconds, lines)."""
        return self.run(lambda: [self.process.stdout.readline().decode() for _ in range(count)])

    def advance_until(self, is_done):
        """Runs until is_done(), which is asked a hundred times a second: seconds."""

        def wait():
            while not is_done():
                time.sleep(0.01)
                if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return [is_done()]
            return [True]

        return self.run(wait)[0]

    def run(self, wait):
        began = time.monotonic()
        os.kill(self.process.pid, signal.SIGCONT)
        found = wait()
        seconds = time.monotonic() - began
        if not found[-1]:
            sys.exit(f"ended early: {self.command}")
        os.kill(self.process.pid, signal.SIGSTOP)
        return seconds, found

    def finish(self):
        """Largest resident bytes, after the rest of the run, which must succeed."""
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdout.read()
        _, status, usage = os.wait4(self.process.pid, 0)
        if status != 0:
            sys.exit(f"failed: {self.command}")
        return usage.ru_maxrss * 1024
