"""Small pictures under prompts of the shapes world, for the tests of `prefusion score`."""

import io

import numpy
from PIL import Image

PROMPTS = ["a red circle left of a blue square", "a green triangle", "a blue circle left of a red triangle", "a red square"]


def png(seed, size=(40, 32)):
    """A random picture without fine texture."""
    generator = numpy.random.default_rng(seed)
    small = generator.integers(0, 256, (size[1] // 8 + 2, size[0] // 8 + 2, 3), dtype=numpy.uint8)
    out = io.BytesIO()
    Image.fromarray(small).resize(size).save(out, "PNG")
    return out.getvalue()
