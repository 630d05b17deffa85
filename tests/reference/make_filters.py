"""Text diversity and perceptual hashes as NumPy and Pillow have them.

make_filters.py OUT    OUT/texts.safetensors: embeddings [P, D] and log distances to the k-th neighbour, knn_K [P];
                       OUT/NAME.png and .jpg with their hashes in OUT/hashes.json
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

OUT = pathlib.Path(sys.argv[1])
random = np.random.default_rng(5)

# More rows than a block of the implementation, some of them near each other, two equal.
embeddings = random.normal(size=(1100, 24)).astype(np.float32)
embeddings[300:320] = embeddings[0] + 1e-3 * random.normal(size=(20, 24)).astype(np.float32)
embeddings[7] = embeddings[3]
embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
distances = np.linalg.norm(embeddings[:, None].astype(np.float64) - embeddings[None], axis=2)
np.fill_diagonal(distances, np.inf)
distances.sort(axis=1)
tensors = {"embeddings": embeddings}
for k in (1, 5, 40):
    tensors[f"knn_{k}"] = np.log(np.maximum(distances[:, k - 1], 1e-6))
save_file(tensors, OUT / "texts.safetensors")


def picture_hash(image):
    grey = image.convert("RGB").convert("L").resize((32, 32), Image.BILINEAR)
    x = np.arange(32)
    basis = np.cos(np.pi / 32 * (x[None] + 0.5) * np.arange(1, 9)[:, None])
    coefficients = (basis @ np.asarray(grey, dtype=np.float64) @ basis.T).ravel()
    bits = coefficients > np.median(coefficients)
    return sum(1 << int(i) for i in np.flatnonzero(bits))


hashes = {}
for i, (width, height) in enumerate([(64, 64), (90, 51), (33, 200), (32, 32), (17, 9)]):
    corners = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(corners).resize((width, height), Image.BICUBIC)
    name = f"{i}.{'jpg' if i % 2 else 'png'}"
    image.save(OUT / name)
    hashes[name] = str(picture_hash(Image.open(OUT / name)))
(OUT / "hashes.json").write_text(json.dumps(hashes))
