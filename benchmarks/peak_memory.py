"""What a program takes, and what `prefusion align --dry-run` says that a run will take."""

import pathlib
import re
import subprocess
import threading
import time


def peak_of(command):
    """Largest resident bytes of the process, its own alone, its seconds, and its standard output. It must succeed."""
    command = [str(part) for part in command]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0

    def watch():
        nonlocal peak
        while process.poll() is None:
            try:
                found = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text())
            except OSError:
                return
            peak = max(peak, int(found[1]) * 1024) if found else peak
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, errors = process.communicate()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{errors}")
    return peak, time.monotonic() - began, output


def said_peaks(dry_run):
    """Gigabytes before the steps and of the steps, from the output of a dry run."""
    return tuple(float(re.search(line + r" +([\d.]+) GB", dry_run)[1]) for line in ("before the steps", "peak memory"))
