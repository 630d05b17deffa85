"""Checks that every test the documentation names in backticks exists: `Suite.Name`, where * stands for anything, or `name_test`."""

import fnmatch
import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parent.parent
NAMED = re.compile(r"`([A-Z]\w*\.(?:[A-Z*][\w*-]*|\w+-[\w*-]+)|[a-z]\w*_test)`")
INNERMOST_LOOP = re.compile(r"foreach\((\w+) ([^)]*)\)((?:(?!foreach\().)*?)endforeach\(\)", re.DOTALL)
MADE_BY_CMAKE = re.compile(r"(?:prefusion_test|prefusion_e2e_test|add_test)\((?:NAME )?([\w.-]+)")
MADE_BY_GTEST = re.compile(r"^TEST(?:_[FP])?\((\w+), (\w+)\)", re.MULTILINE)


def unrolled(text):
    """A CMake file with its loops written out."""
    while loop := INNERMOST_LOOP.search(text):
        variable, values, body = loop.groups()
        written = "".join(body.replace(f"${{{variable}}}", value) for value in values.split())
        text = text[: loop.start()] + written + text[loop.end() :]
    return text


def existing_tests():
    """Names of ctest, and Suite.Name of the cases inside its executables."""
    names = set()
    for path in (root / "tests").rglob("CMakeLists.txt"):
        names |= set(MADE_BY_CMAKE.findall(unrolled(path.read_text())))
    for path in (root / "tests").rglob("*.cpp"):
        names |= {f"{suite}.{name}" for suite, name in MADE_BY_GTEST.findall(path.read_text())}
    return names


names = existing_tests()
problems = []
for path in sorted([*root.glob("*.md"), *root.glob("docs/*.md")]):
    for named in NAMED.findall(path.read_text()):
        if not fnmatch.filter(names, named):
            problems.append(f"{path.relative_to(root)}: there is no test `{named}`")
if problems:
    print("\n".join(problems))
sys.exit(bool(problems))
