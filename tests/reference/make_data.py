"""Pictures and preference files of many kinds, with what Pillow and PyArrow make of them.

make_data.py OUT pictures   OUT/pictures/NAME.EXT, OUT/pictures.safetensors (NAME: RGB bytes), resized pictures in
                            OUT/resized.safetensors
make_data.py OUT records    OUT/*.parquet, manifests and folders, and what they hold in OUT/expected.json
make_data.py OUT extras     Parquet pairs with scores, weights, item prompts and masks;
                            pictures with masks and what becomes of them in OUT/masks.safetensors
make_data.py OUT check FILE what PyArrow and Pillow read in a file written by prefusion, in OUT/found.json
"""

import hashlib
import io
import json
import os
import struct
import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

OUT = sys.argv[1]


def picture(height, width, channels=3, seed=0):
    """A smooth picture with some texture, so that JPEG keeps it and resizing shows every error."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for c in range(channels):
        wave = 127 + 90 * np.sin(x / (5 + c) + seed) * np.cos(y / (7 - c)) + rng.normal(0, 12, (height, width))
        planes.append(np.clip(wave, 0, 255))
    return np.stack(planes, -1).astype(np.uint8)


# ---------------------------------------------------------------------------------------------- pictures


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(pixels, depth, colour, interlaced=False, extra=b""):
    """pixels [H, W, C] of integers, written without filters, Adam7 on wish: what Pillow cannot write."""
    height, width, _ = pixels.shape

    def rows(part):
        out = b""
        for row in part:
            if depth == 16:
                out += b"\0" + row.astype(">u2").tobytes()
            elif depth == 8:
                out += b"\0" + row.astype(np.uint8).tobytes()
            else:
                bits = "".join(format(int(v), f"0{depth}b") for v in row.ravel())
                bits += "0" * (-len(bits) % 8)
                out += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        return out

    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    body = b"".join(rows(pixels[y::dy, x::dx]) for y, x, dy, dx in passes if pixels[y::dy, x::dx].size)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(body))
        + png_chunk(b"IEND", b"")
    )


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif_with(orientation):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x0112] = orientation
    return exif


def make_pictures():
    rgb = Image.fromarray(picture(37, 53))
    rgba = Image.fromarray(picture(37, 53, 4, seed=3))
    grey = Image.fromarray(picture(37, 53)[..., 0])
    files = {
        "jpeg_444.jpg": encoded(rgb, "JPEG", quality=92, subsampling=0),
        "jpeg_422.jpg": encoded(rgb, "JPEG", quality=85, subsampling=1),
        "jpeg_420.jpg": encoded(rgb, "JPEG", quality=80, subsampling=2),
        "jpeg_progressive.jpg": encoded(rgb, "JPEG", quality=90, progressive=True),
        "jpeg_restarts.jpg": encoded(rgb, "JPEG", quality=90, restart_marker_rows=1),
        "jpeg_grey.jpg": encoded(grey, "JPEG", quality=90),
        "jpeg_cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG", quality=95),
        "jpeg_one_pixel.jpg": encoded(rgb.crop((0, 0, 1, 1)), "JPEG"),
        "png_rgb.png": encoded(rgb, "PNG"),
        "png_rgba.png": encoded(rgba, "PNG"),
        "png_grey.png": encoded(grey, "PNG"),
        "png_grey_alpha.png": encoded(rgba.convert("LA"), "PNG"),
        "png_bits_1.png": encoded(grey.convert("1"), "PNG"),
        "png_palette.png": encoded(rgb.quantize(200), "PNG"),
        "png_palette_4.png": encoded(rgb.quantize(11), "PNG"),
        "png_palette_alpha.png": encoded(rgb.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
        "png_grey_transparent.png": encoded(grey, "PNG", transparency=100),
        "png_rgb_transparent.png": encoded(rgb, "PNG", transparency=tuple(picture(37, 53)[0, 0].tolist())),
        "webp_lossy.webp": encoded(rgb, "WEBP", quality=80),
        "webp_lossless.webp": encoded(rgb, "WEBP", lossless=True),
        "webp_alpha.webp": encoded(rgba, "WEBP", lossless=True, exact=True),
        "webp_alpha_lossy.webp": encoded(rgba, "WEBP", quality=70),
        "png_exif.png": encoded(rgb, "PNG", exif=exif_with(6)),
        "webp_exif.webp": encoded(rgb, "WEBP", lossless=True, exif=exif_with(8)),
    }
    for orientation in range(1, 9):
        files[f"jpeg_exif_{orientation}.jpg"] = encoded(rgb, "JPEG", quality=90, exif=exif_with(orientation))
    wide = np.random.default_rng(5).integers(0, 65536, (19, 23, 4))
    files["png_16_rgb.png"] = png_file(wide[..., :3], 16, 2)
    files["png_16_rgba.png"] = png_file(wide, 16, 6)
    files["png_16_grey_alpha.png"] = png_file(wide[..., :2], 16, 4)
    files["png_16_grey.png"] = png_file(wide[..., :1], 16, 0)
    files["png_grey_2.png"] = png_file(wide[..., :1] % 4, 2, 0)
    files["png_grey_4.png"] = png_file(wide[..., :1] % 16, 4, 0)
    files["png_interlaced.png"] = png_file(picture(37, 53), 8, 2, interlaced=True)
    files["png_interlaced_small.png"] = png_file(picture(3, 2), 8, 2, interlaced=True)
    os.makedirs(f"{OUT}/pictures")
    expected = {}
    for name, data in files.items():
        open(f"{OUT}/pictures/{name}", "wb").write(data)
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        expected[name] = np.asarray(image.convert("RGB"))
    # Pillow saturates 16-bit grey at 255; its 16-bit colour, and prefusion, keep the upper byte.
    expected["png_16_grey.png"] = np.repeat((wide[..., :1] >> 8).astype(np.uint8), 3, -1)
    save_tensors("pictures", expected)


def make_resized():
    cases = {}
    shapes = [(37, 53, 64, 96), (64, 48, 32, 24), (200, 300, 64, 96), (31, 31, 31, 77), (50, 20, 125, 50), (9, 7, 1, 1)]
    shapes += [(517, 389, 224, 168), (3, 400, 11, 64), (128, 128, 127, 129)]
    shapes += [(88, 76, 39, 59), (87, 80, 20, 45), (120, 60, 59, 30), (121, 60, 61, 30), (42, 17, 5, 51), (90, 30, 60, 20)]
    for height, width, new_height, new_width in shapes:
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
        cases[f"input_{height}x{width}"] = image
        for name, how in [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)]:
            out = Image.fromarray(image).resize((new_width, new_height), how)
            cases[f"{name}_{height}x{width}"] = np.asarray(out)
        # The transform: shorter side to 48, the middle, as torchvision crops it.
        scale = (48, 48 * width // height) if height <= width else (48 * height // width, 48)
        out = np.asarray(Image.fromarray(image).resize(scale[::-1], Image.BILINEAR))
        top, left = (round((size - 48) / 2) for size in scale)
        cases[f"transform_{height}x{width}"] = out[top : top + 48, left : left + 48]
    save_tensors("resized", cases)


def save_tensors(name, arrays):
    from safetensors.numpy import save_file

    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, f"{OUT}/{name}.safetensors")


# ---------------------------------------------------------------------------------------------- records


def jpg(row, item):
    return f"image {item} of row {row}".encode()


def judge(row):
    """(outcome, chosen item) of a Pick-a-Pic row as the dataset card and the trainers read it."""
    label = row["label_0"]
    if not row.get("has_label", True) or label is None:
        return "missing_labels", 0
    if row.get("label_1") is not None and abs(label + row["label_1"] - 1) > 1e-6:
        return "inconsistent", 0
    if not 0 <= label <= 1:
        return "inconsistent", 0
    if row["caption"] is None:
        return "missing_prompts", 0
    if label == 0.5:
        return "ties", 0
    return "used_rows", 0 if label > 0.5 else 1


def expectation(rows):
    found = {"rows": len(rows), "groups": []}
    for outcome in ("ties", "missing_labels", "inconsistent", "missing_prompts", "used_rows"):
        found[outcome] = sum(judge(row)[0] == outcome for row in rows)
    for number, row in enumerate(rows):
        outcome, chosen = judge(row)
        if outcome == "used_rows":
            images = [row["jpg_0"], row["jpg_1"]]
            found["groups"].append(
                {
                    "row": number,
                    "prompt": row["caption"],
                    "chosen": images[chosen].decode(),
                    "rejected": images[1 - chosen].decode(),
                    "label": max(row["label_0"], 1 - row["label_0"]),
                    "model": row.get(f"model_{chosen}", ""),
                }
            )
    return found


def pickapic_rows(count):
    labels = [1.0, 0.0, 0.5, 1.0, None, 0.0, 0.8, 1.0, 0.0, 2.0, 0.0, 1.0]
    rows = []
    for i in range(count):
        label = labels[i % len(labels)]
        rows.append(
            {
                "label_0": label,
                "label_1": None if label is None else 1 - label,
                "has_label": i % 13 != 7,
                "caption": None if i == 10 else f"prompt {i % 9} – ä “{i % 9}”",
                "jpg_0": jpg(i, 0),
                "jpg_1": jpg(i, 1),
                "model_0": f"model {i % 3}",
                "model_1": f"model {i % 2}",
                "ranking_id": i,
                "user_id": i % 4,
                "created_at": 1680000000000000000 + i,
            }
        )
    rows[1]["label_1"] = 0.0  # contradicts label_0 = 0
    return rows


def column(rows, name, kind=None):
    return pa.array([row[name] for row in rows], kind)


def write(name, columns, **options):
    pq.write_table(pa.table(columns), f"{OUT}/{name}.parquet", **options)


def hf_image(values):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": value, "path": None} for value in values], kind)


def make_pickapic():
    rows = pickapic_rows(40)
    expected = {"plain": expectation(rows)}
    names = ["user_id", "jpg_1", "label_1", "caption", "created_at", "model_1", "label_0", "has_label", "ranking_id"]
    names += ["jpg_0", "model_0"]
    write("plain", {name: column(rows, name) for name in names}, row_group_size=7)

    # Only what is needed, in other types; an integer label knows no ties.
    plain = [row | {"label_0": int(row["label_0"]), "label_1": None} for row in rows if row["label_0"] in (0, 1)]
    for row in plain:
        del row["has_label"]
        row["caption"] = row["caption"] or "x"
    bare = [{k: row[k] for k in ("label_0", "caption", "jpg_0", "jpg_1")} for row in plain]
    expected["bare"] = expectation(bare)
    captions = pa.array([row["caption"] for row in bare]).cast(pa.large_string()).dictionary_encode()
    write(
        "bare",
        {
            "label_0": column(bare, "label_0", pa.int8()),
            "jpg_0": column(bare, "jpg_0", pa.large_binary()),
            "caption": captions,
            "jpg_1": column(bare, "jpg_1", pa.large_binary()),
        },
        row_group_size=4,
        compression="zstd",
    )

    expected["struct"] = expectation(rows)
    write(
        "struct",
        {
            "caption": column(rows, "caption", pa.string_view()),
            "jpg_0": hf_image([row["jpg_0"] for row in rows]),
            "jpg_1": hf_image([row["jpg_1"] for row in rows]),
            "label_0": column(rows, "label_0", pa.float32()),
            "label_1": column(rows, "label_1", pa.float32()),
            "has_label": column(rows, "has_label", pa.bool_()).cast(pa.int64()),
            "model_0": pa.array([row["model_0"] for row in rows]).dictionary_encode(),
            "model_1": column(rows, "model_1"),
        },
        row_group_size=11,
        compression="none",
    )

    # label_1 alone.
    flipped = [row | {"label_0": None if row["label_1"] is None else 1 - row["label_1"]} for row in rows]
    expected["second_label"] = expectation(flipped)
    names = ["label_1", "has_label", "caption", "jpg_0", "jpg_1", "model_0", "model_1"]
    write("second_label", {name: column(rows, name) for name in names})

    # 2000 rows of 3 KB in one row group: cut into segments when memory is small. And in 500 groups of four.
    rng = np.random.default_rng(0)
    large = [
        {
            "label_0": float(i % 2),
            "caption": f"prompt {i}",
            "jpg_0": jpg(i, 0) + rng.integers(97, 122, 3000, dtype=np.uint8).tobytes(),
            "jpg_1": jpg(i, 1) + b"y" * (i % 50),
        }
        for i in range(2000)
    ]
    for name, group in [("one_group", 2000), ("many_groups", 4)]:
        expected[name] = {"rows": len(large)}
        write(name, {key: column(large, key) for key in large[0]}, row_group_size=group)
    return expected


def make_lists():
    kind = pa.struct(
        [
            ("image", pa.binary()),
            ("model", pa.string()),
            ("seed", pa.int64()),
            ("scores", pa.map_(pa.string(), pa.float64())),
            ("rank", pa.int32()),
        ]
    )
    rows = []
    for i in range(9):
        count = 4 + i % 2
        rng = np.random.default_rng(i)
        ranks = rng.permutation(count)
        first, second = rng.permutation(count), rng.permutation(count)
        rows.append(
            {
                "prompt": f"list {i}",
                "images": [
                    {
                        "image": jpg(i, item),
                        "model": f"model {item}",
                        "seed": item,
                        "scores": [("clip", float(first[item])), ("taste", second[item] / 10)],
                        "rank": int(ranks[item]),
                    }
                    for item in range(count)
                ],
            }
        )
    groups = []
    for i, row in enumerate(rows):
        items = row["images"]
        count = len(items)
        wins = [
            np.mean(
                [
                    dict(item["scores"])[name] > dict(other["scores"])[name]
                    for name in ("clip", "taste")
                    for other in items
                    if other is not item
                ]
            )
            for item in items
        ]
        if i == 0:  # ranks that agree with the wins, ties by place; elsewhere they contradict them
            by_wins = sorted(range(count), key=lambda n: -wins[n])
            for rank, n in enumerate(by_wins):
                items[n]["rank"] = rank
        order = sorted(range(count), key=lambda n: items[n]["rank"])
        if any(wins[a] < wins[b] for a, b in zip(order, order[1:])):
            wins = [(count - 1 - item["rank"]) / (count - 1) for item in items]
        by_taste = sorted(range(count), key=lambda n: -dict(items[n]["scores"])["taste"])
        groups.append(
            {
                "prompt": row["prompt"],
                "images": [items[n]["image"].decode() for n in order],
                "labels": [float(wins[n]) for n in order],
                "taste_images": [items[n]["image"].decode() for n in by_taste],
                "taste_labels": [dict(items[n]["scores"])["taste"] for n in by_taste],
            }
        )
    table = pa.table({"prompt": column(rows, "prompt"), "images": column(rows, "images", pa.list_(kind))})
    pq.write_table(table, f"{OUT}/lists.parquet", row_group_size=2)
    return groups


def make_manifests():
    os.makedirs(f"{OUT}/manifest/pics")
    os.makedirs(f"{OUT}/manifest/train")
    for name in "abcdef":
        open(f"{OUT}/manifest/pics/{name}.png", "w").write(name)
        open(f"{OUT}/manifest/train/{name}.jpg", "w").write("hpd " + name)
    pics = [f"pics/{name}.png" for name in "abcdef"]
    lines = [
        {"prompt": "scores", "images": pics[:3], "scores": [0.1, 0.9, 0.5]},
        {"prompt": "ranks", "images": pics[3:], "ranks": [2, 3, 1]},
        {"prompt": "label", "images": pics[:2], "label": 0},
        {"prompt": "labels", "images": pics[:2], "label": [0.25, 0.75]},
        {"prompt": "tie", "images": pics[:2], "label": 0.5},
        {"prompt": "score tie", "images": pics[:2], "scores": [3, 3]},
        {"prompt": "no label", "images": pics[:2], "label": None},
        {"prompt": "contradiction", "images": pics[:2], "label": [1, 1]},
        {"images": pics[:2], "label": 1},
        {"prompt": "scores of two", "images": pics[:2], "scores": [0.3, 0.7]},
    ]
    with open(f"{OUT}/manifest/pairs.jsonl", "w") as file:
        file.write("\ufeff" + "\n\n".join(json.dumps(line) for line in lines) + "\n")
        file.write('{"prompt": "cut off", "images": ["pics/a.png"\n[1, 2]\n{"prompt": "x", "label": 1}')
    with open(f"{OUT}/manifest/unpaired.jsonl", "w") as file:
        for name, label in zip("abc", [1, False, None]):
            file.write(json.dumps({"prompt": f"single {name}", "image": f"pics/{name}.png", "label": label}) + "\r\n")
    train = [
        {"prompt": "p [1], {x}", "file_path": ["a.jpg", "b.jpg"], "human_preference": [1, 0]},
        {"prompt": 'q "]" \\', "file_path": ["c.jpg", "d.jpg"], "human_preference": [0, 1]},
    ]
    json.dump(train, open(f"{OUT}/manifest/train.json", "w"), indent=1)
    test = [{"prompt": "r", "image_path": ["a.jpg", "b.jpg", "c.jpg"], "rank": [1, 0, 2], "raw_annotations": [{}]}]
    json.dump(test, open(f"{OUT}/manifest/test.json", "w"))
    os.rename(f"{OUT}/manifest/train/f.jpg", f"{OUT}/manifest/f.jpg")
    for side in ("chosen", "rejected"):
        os.makedirs(f"{OUT}/folders/{side}")
        for name in "abc":
            open(f"{OUT}/folders/{side}/{name}.{'JPG' if name == 'a' else 'webp'}", "w").write(f"{side} {name}")
    open(f"{OUT}/folders/chosen/a.txt", "w").write("caption a\n")
    open(f"{OUT}/folders/b.txt", "w").write("caption b")
    open(f"{OUT}/folders/chosen/d.png", "w").write("alone")


def make_broken():
    whole = open(f"{OUT}/many_groups.parquet", "rb").read()
    os.makedirs(f"{OUT}/broken")
    open(f"{OUT}/broken/cut.parquet", "wb").write(whole[: len(whole) // 2])
    open(f"{OUT}/broken/text.parquet", "wb").write(b"not parquet at all")
    open(f"{OUT}/broken/empty.parquet", "wb").write(b"")
    # Damage inside the image pages only: rows of some row groups cannot be read.
    data = bytearray(whole)
    file = pq.ParquetFile(f"{OUT}/many_groups.parquet")
    column = file.schema.names.index("jpg_0")
    for group in (3, 77):
        chunk = file.metadata.row_group(group).column(column)
        start = chunk.data_page_offset if chunk.dictionary_page_offset is None else chunk.dictionary_page_offset
        for i in range(start, start + 24):
            data[i] ^= 0xFF
    open(f"{OUT}/broken/pages.parquet", "wb").write(data)
    table = pa.table({"caption": ["x"], "label_0": [1.0]})
    pq.write_table(table, f"{OUT}/broken/no_images.parquet")
    table = pa.table({"caption": ["x"], "label_0": ["yes"], "jpg_0": [b"a"], "jpg_1": [b"b"]})
    pq.write_table(table, f"{OUT}/broken/wrong_type.parquet")


def make_records():
    expected = make_pickapic()
    expected["lists"] = make_lists()
    make_manifests()
    make_broken()
    json.dump(expected, open(f"{OUT}/expected.json", "w"))


# ---------------------------------------------------------------------------------------------- extras


def make_extra_pairs():
    """Pairs with everything a pair can carry; row 2 has no score, row 3 no weight, row 4 no second caption."""
    rows = []
    for i in range(6):
        rows.append(
            {
                "caption": f"prompt {i}",
                "caption_0": f"first {i}",
                "caption_1": None if i == 4 else f"second {i}",
                "jpg_0": jpg(i, 0),
                "jpg_1": jpg(i, 1),
                "label_0": [1.0, 0.0, 0.7][i % 3],
                "score_0": None if i == 2 else i + 0.25,
                "score_1": i - 0.5,
                "clip_0": float(i),
                "clip_1": float(-i),
                "weight": None if i == 3 else i / 4,
                "mask_0": b"mask 0 of %d" % i,
                "mask_1": b"mask 1 of %d" % i,
            }
        )
    columns = {name: column(rows, name) for name in rows[0]}
    write("extras", columns)
    write("no_shared_caption", {name: values for name, values in columns.items() if name != "caption"})
    shared = {name: values for name, values in columns.items() if name not in ("mask_0", "mask_1")}
    write("shared_mask", shared | {"mask": column(rows, "mask_0")})
    for name, values in [
        ("nan_weight", {"weight": [1.0, float("nan"), 1.0, 1.0, 1.0, 1.0]}),
        ("negative_weight", {"weight": [1, -1, 1, 1, 1, 1]}),
        ("infinite_score", {"score_0": [1.0, float("inf"), 1.0, 1.0, 1.0, 1.0]}),
    ]:
        write(name, columns | {key: pa.array(value) for key, value in values.items()})
    kind = pa.struct([("image", pa.binary()), ("rank", pa.int32())])
    images = [[{"image": jpg(0, item), "rank": item} for item in range(3)]]
    write(
        "weighted_list",
        {"prompt": ["p"], "weight": [0.5], "mask": [b"mask of all"], "images": pa.array(images, pa.list_(kind))},
    )


def make_masks():
    """Pictures of several shapes with their masks, placed by Pillow at 32 pixels and averaged over 8 x 8."""
    tensors = {}
    for number, (height, width) in enumerate([(40, 64), (51, 33), (32, 32), (100, 90)]):
        mask = picture(height, width, seed=number)
        if number % 2:
            mask = mask[..., :1].repeat(3, -1)
        image = Image.fromarray(mask)
        encodings = [encoded(image, "PNG"), encoded(image.convert("L"), "PNG")]
        grey = Image.open(io.BytesIO(encodings[0])).convert("L")
        scale = (32, 32 * width // height) if height <= width else (32 * height // width, 32)
        resized = np.asarray(grey.resize(scale[::-1], Image.BILINEAR))
        top, left = (round((size - 32) / 2) for size in scale)
        placed = resized[top : top + 32, left : left + 32]
        latent = placed.astype(np.float64).reshape(4, 8, 4, 8).mean((1, 3)) / 255
        name = f"{number}"
        for kind, data in zip(("colour", "grey"), encodings):
            tensors[f"{name}.{kind}"] = np.frombuffer(data, np.uint8)
        tensors[f"{name}.size"] = np.array([height, width])
        tensors[f"{name}.placed"] = placed
        tensors[f"{name}.latent"] = latent[None].astype(np.float32)
    save_tensors("masks", tensors)


def check(path):
    file = pq.ParquetFile(path)
    rows = file.read().to_pylist()

    def plain(value):
        if isinstance(value, bytes):
            try:
                image = Image.open(io.BytesIO(value))
                pixels = hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()
                return {"format": image.format, "size": image.size, "pixels": pixels}
            except OSError:
                return value.decode()
        if isinstance(value, list):
            return [plain(element) for element in value]
        if isinstance(value, dict):
            return {key: plain(element) for key, element in value.items()}
        return value

    found = {
        "columns": file.schema_arrow.names,
        "types": [str(field.type) for field in file.schema_arrow],
        "row_groups": [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)],
        "rows": [plain(row) for row in rows],
    }
    json.dump(found, open(f"{OUT}/found.json", "w"))


if sys.argv[2] == "pictures":
    make_pictures()
    make_resized()
elif sys.argv[2] == "records":
    make_records()
elif sys.argv[2] == "extras":
    make_extra_pairs()
    make_masks()
else:
    check(sys.argv[3])
