"""Reads a TensorBoard event folder with tensorboard's own reader: read_events.py OUT FOLDER writes OUT/scalars.json."""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

OUT, FOLDER = sys.argv[1:]
accumulator = EventAccumulator(FOLDER)
accumulator.Reload()
tags = accumulator.Tags()["scalars"]
scalars = {tag: [[event.step, event.value] for event in accumulator.Scalars(tag)] for tag in tags}
with open(f"{OUT}/scalars.json", "w") as file:
    json.dump(scalars, file)
