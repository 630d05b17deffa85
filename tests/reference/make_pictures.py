"""Pictures in every mode, and what Pillow, transformers, torchvision and open_clip make of them.

Usage: make_pictures.py OUTPUT modes|preparations
  modes         OUTPUT/files/NAME, OUTPUT/modes.json (NAME: Pillow's mode), OUTPUT/modes.safetensors with NAME.rgb and NAME.white,
                NAME.resized.F (F: Pillow's filter number, to 19 x 23)
  preparations  OUTPUT/files/NAME, OUTPUT/configs/NAME/{preprocessor,processor}_config.json, OUTPUT/NAME.safetensors:
                for each config, and for the recipes pillow.*, tensor.*, a tensor for each picture
"""

import io
import json
import pathlib
import struct
import sys
import warnings
import zlib

import numpy
import torch
from PIL import Image
from safetensors.numpy import save_file
from torchvision import transforms
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil
from transformers.image_transforms import convert_to_rgb

warnings.simplefilter("ignore")
torch.set_num_threads(1)
OUT = pathlib.Path(sys.argv[1])
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def texture(height, width, channels, seed):
    generator = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    planes = [127 + 110 * numpy.sin(x / (2 + c) + seed) * numpy.cos(y / (3 + c)) + generator.normal(0, 25, (height, width)) for c in range(channels)]
    return numpy.clip(numpy.stack(planes, -1), 0, 255).astype(numpy.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, depth, colour, *extra):
    """[H, W, C] of integers as a PNG of any depth and colour type, chunks `extra` before the pixels."""
    height, width, _ = pixels.shape
    body = b""
    for row in pixels:
        if depth == 16:
            body += b"\0" + row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(value), f"0{depth}b") for value in row.ravel())
            bits += "0" * (-len(bits) % 8)
            body += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def trns(*numbers):
    return chunk(b"tRNS", struct.pack(f">{len(numbers)}H", *numbers))


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def of_all_modes(height, width):
    rgb, rgba = Image.fromarray(texture(height, width, 3, 1)), texture(height, width, 4, 2)
    rgba[: height // 3, :, 3] = 0  # hidden colours
    rgba[:, : width // 4, 3] = 255
    rgba = Image.fromarray(rgba)
    grey = rgb.convert("L")
    wide = numpy.random.default_rng(4).integers(0, 65536, (height, width, 4))
    low = numpy.random.default_rng(5).integers(0, 700, (height, width, 1))
    few = numpy.array(grey)[..., None]
    palette = chunk(b"PLTE", bytes(range(30, 30 + 3 * 9)))
    return {
        "rgb.png": encoded(rgb, "PNG"),
        "rgba.png": encoded(rgba, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey_alpha.png": encoded(rgba.convert("LA"), "PNG"),
        "bilevel.png": encoded(grey.convert("1"), "PNG"),
        "bilevel_key_0.png": png(few // 128, 1, 0, trns(0)),
        "bilevel_key_1.png": png(few // 128, 1, 0, trns(1)),
        "grey_2.png": png(few // 64, 2, 0, trns(1)),  # Pillow compares the stored 1 with pixels of 85
        "grey_2_key.png": png(few // 64, 2, 0, trns(85)),
        "grey_4.png": png(few // 16, 4, 0),
        "grey_key.png": png(few, 8, 0, trns(256 + int(few[0, 0, 0]))),
        "rgb_key.png": png(numpy.array(rgb) // 64, 8, 2, trns(1, 2, 257)),
        "palette.png": encoded(rgb.quantize(200), "PNG"),
        "palette_4.png": png(few // 16, 4, 3, palette, chunk(b"tRNS", bytes([255, 0, 90, 255, 7]))),  # indices beyond it
        "palette_one.png": png(few // 64, 2, 3, palette, chunk(b"tRNS", bytes([255, 0]))),
        "palette_alpha.png": encoded(rgb.quantize(64), "PNG", transparency=bytes(range(0, 256, 4))),
        "wide_grey.png": png(wide[..., :1], 16, 0),
        "wide_grey_low.png": png(low, 16, 0, trns(255)),
        "wide_grey_alpha.png": png(wide[..., :2], 16, 4),
        "wide_rgb.png": png(wide[..., :3], 16, 2),
        "wide_rgb_key.png": png(wide[..., :3] >> 14 << 8, 16, 2, trns(0x0101, 2, 3)),
        "wide_rgba.png": png(wide, 16, 6),
        "exif.png": encoded(rgb, "PNG", exif=exif(6)),
        "exif.jpg": encoded(rgb, "JPEG", quality=90, exif=exif(8)),
        "grey.jpg": encoded(grey, "JPEG", quality=90),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG", quality=92),
        "rgb.webp": encoded(rgb, "WEBP", quality=80),
        "rgba.webp": encoded(rgba, "WEBP", lossless=True, exact=True),
        "rgba_lossy.webp": encoded(rgba, "WEBP", quality=60),
    }


def write_files(files):
    (OUT / "files").mkdir(parents=True)
    for name, data in files.items():
        (OUT / "files" / name).write_bytes(data)


def packed(arrays):
    return {key: numpy.ascontiguousarray(value) for key, value in arrays.items()}


def make_modes():
    files = of_all_modes(29, 41)
    write_files(files)
    modes, expected = {}, {}
    for name, data in files.items():
        image = Image.open(io.BytesIO(data))
        modes[name] = image.mode
        expected[f"{name}.rgb"] = numpy.asarray(image.convert("RGB"))
        expected[f"{name}.white"] = convert_to_rgb(Image.open(io.BytesIO(data)), return_numpy=True)
        for number in range(6):
            for width, height in [(23, 19), (41, 12), (50, 29)]:
                resized = numpy.asarray(image.resize((width, height), number).convert("RGB"))
                expected[f"{name}.resized.{number}.{height}x{width}"] = resized
    (OUT / "modes.json").write_text(json.dumps(modes))
    save_file(packed(expected), OUT / "modes.safetensors")


CONFIGS = {
    "clip": ("preprocessor", {"image_processor_type": "CLIPImageProcessor"}),
    "old_numbers": ("preprocessor", {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 30, "size": 37, "resample": 3, "do_center_crop": True, "do_resize": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.1]}),
    "larger_crop": ("preprocessor", {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 40}, "resample": 2}),
    "exact": ("preprocessor", {"size": {"height": 31, "width": 18}, "do_center_crop": False, "resample": 1}),
    "list": ("preprocessor", {"size": [22, 35], "crop_size": [21, 35], "resample": 5}),
    "square": ("preprocessor", {"size": 26, "default_to_square": True, "crop_size": 26, "resample": 4}),
    "bounded": ("preprocessor", {"size": {"shortest_edge": 40, "longest_edge": 57}, "crop_size": {"height": 40, "width": 40}}),
    "inside": ("preprocessor", {"size": {"max_height": 40, "max_width": 50}, "do_center_crop": False, "do_pad": True, "pad_size": {"height": 44, "width": 51}}),
    "no_rescale": ("preprocessor", {"size": {"shortest_edge": 24}, "crop_size": 24, "do_rescale": False, "resample": 0}),
    "no_normalize": ("preprocessor", {"size": {"shortest_edge": 24}, "crop_size": 24, "do_normalize": False, "rescale_factor": 0.01}),
    "no_resize": ("preprocessor", {"do_resize": False, "crop_size": {"height": 30, "width": 31}, "image_mean": 0.25, "image_std": 0.5}),
    "raw": ("preprocessor", {"size": {"shortest_edge": 24}, "crop_size": 24, "do_normalize": False, "do_rescale": False}),
    "siglip": ("preprocessor", {"image_processor_type": "SiglipImageProcessor"}),
    "siglip_384": ("processor", {"image_processor_type": "SiglipImageProcessor", "size": {"height": 38, "width": 38}, "resample": 2, "do_convert_rgb": None}),
    "nested": ("processor", {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "data_format": "channels_first"}),
}
SIZES = [(832, 1216), (1216, 832), (1, 1), (1, 9), (500, 3), (224, 224), (37, 2000), (64, 61)]


def processor_of(settings):
    kind = SiglipImageProcessorPil if "Siglip" in settings.get("image_processor_type", "") else CLIPImageProcessorPil
    return kind.from_dict(settings)


def tensors_of(transform, size, antialias):
    steps = [transforms.ToTensor(), transforms.Resize(size, transforms.InterpolationMode.BICUBIC, antialias=antialias), transforms.CenterCrop(size), transforms.Normalize(MEAN, STD)]
    return transforms.Compose(steps)


def make_preparations():
    files = {f"{height}x{width}.png": encoded(Image.fromarray(texture(height, width, 3, height)), "PNG", compress_level=1) for height, width in SIZES}
    files |= of_all_modes(45, 62)
    files = {name: data for name, data in files.items() if not name.endswith(".jpg")}  # lossy decoders may differ by a level
    write_files(files)
    opened = {name: Image.open(io.BytesIO(data)) for name, data in files.items()}
    for name, (kind, settings) in CONFIGS.items():
        folder = OUT / "configs" / name
        folder.mkdir(parents=True)
        written = {"image_processor": settings, "processor_class": "CLIPProcessor"} if kind == "processor" else settings
        (folder / f"{kind}_config.json").write_text(json.dumps(written))
        if kind == "processor":  # the nested settings win
            (folder / "preprocessor_config.json").write_text('{"size": 8, "crop_size": 8}')
        processor = processor_of(settings)
        expected = {}
        for picture in files:
            if opened[picture].size[0] > 900 and name not in ("clip", "old_numbers", "siglip"):
                continue
            try:
                expected[picture] = numpy.asarray(processor(opened[picture], return_tensors="np")["pixel_values"][0], numpy.float32)
            except ValueError:  # resized to nothing
                pass
        save_file(packed(expected), OUT / f"{name}.safetensors")
    make_recipes(opened)


def make_recipes(opened):
    from open_clip.transform import image_transform

    recipes = {
        "pillow.224": image_transform(224, False),
        "pillow.33": image_transform(33, False, interpolation="bilinear"),
        "pillow.squash": image_transform(30, False, resize_mode="squash", mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)),
        "pillow.larger_crop": transforms.Compose([transforms.Resize(20, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop((35, 26)), lambda image: image.convert("RGB"), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]),
        "tensor.smooth": lambda image: tensors_of(None, 40, True)(image.convert("RGB")),
        "tensor.sharp": lambda image: tensors_of(None, 40, False)(image.convert("RGB")),
        "tensor.224": lambda image: tensors_of(None, 224, True)(image.convert("RGB")),
    }
    for name, recipe in recipes.items():
        expected = {}
        for picture, image in opened.items():
            if name != "pillow.224" and image.size[0] > 900:
                continue
            if name.startswith("tensor") and min(image.size) < 4:
                continue
            expected[picture] = recipe(image).numpy()
        save_file(packed(expected), OUT / f"{name}.safetensors")


make_modes() if sys.argv[2] == "modes" else make_preparations()
