"""Writes text/html_entities.txt, the named character references of HTML 5, from Python's html.entities."""

import html.entities
import pathlib

lines = (f"{name} {' '.join(f'{ord(c):X}' for c in text)}" for name, text in sorted(html.entities.html5.items()))
pathlib.Path(__file__).parent.parent.joinpath("text", "html_entities.txt").write_text("\n".join(lines) + "\n")
