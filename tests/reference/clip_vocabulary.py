"""A small CLIP vocabulary with real merges, trained on the text below, and writers for the folder layouts it is found in."""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Regex

BOS, EOS = "<|startoftext|>", "<|endoftext|>"

TEXT = """
a photo of a red circle left of a blue square, highly detailed, 8k, trending on artstation. It's a cat that doesn't
like dogs; we've seen it, they're sure, I'm told, you'll see, she'd know. A small green triangle above two yellow stars on
a white background. portrait of an astronaut riding a horse on mars, cinematic lighting, masterpiece, best quality!!!
the quick brown fox jumps over the lazy dog, again and again and again, until the old stone bridge at the river.
Ein rotes Quadrat über einem grünen Kreis; schöne große Häuser an der Straße, zwölf Boxkämpfer jagen Viktor quer über
den großen Sylter Deich. Les élèves français préfèrent le café crème, près de la forêt enchantée, où naît l'été à Noël.
El niño pequeño comió una piña mañana; corazón, canción, acción y pingüino. Zażółć gęślą jaźń, łódź i źdźbło.
Съешь же ещё этих мягких французских булок, да выпей чаю; красный круг слева от синего квадрата, большая белая собака.
Ένας κόκκινος κύκλος αριστερά από ένα μπλε τετράγωνο, και ο ουρανός είναι γαλάζιος στις όμορφες νησίδες.
一个红色的圆形在蓝色方块的左边。春天的花园里有很多美丽的花朵和绿色的树木。红色的房子,蓝色的天空,白色的云。
赤い円が青い四角の左にあります。カタカナとひらがなを使います。東京の空は青いです。ガギグゲゴ、パピプペポ。
파란 사각형 왼쪽에 빨간 원이 있습니다. 한국어 문장도 있습니다. 아름다운 봄날의 정원.
دائرة حمراء على يسار مربع أزرق. السماء زرقاء والبحر واسع. العربية لغة جميلة.
नीले वर्ग के बाईं ओर लाल वृत्त। हिन्दी में लिखा हुआ वाक्य।  עיגול אדום משמאל לריבוע כחול, שלום עולם.
วงกลมสีแดงทางซ้ายของสี่เหลี่ยมสีน้ำเงิน   Một hình tròn màu đỏ bên trái hình vuông màu xanh, tiếng Việt đẹp lắm.
1234567890 2024-05-17 3.14159 100% $5.99 #hashtag @user (parentheses) [brackets] {braces} --ar 16:9 --v 5 <lora:x:0.8>
"""


def byte_symbols():
    """GPT-2's byte alphabet in the order of CLIP's vocabulary."""
    printable = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    symbols = [chr(b) for b in printable]
    return symbols + [chr(0x100 + i) for i in range(256 - len(printable))]


def train(num_merges=3000):
    """(vocab, merges) of a byte-level BPE with </w>, laid out as CLIP's: bytes, bytes</w>, merges, BOS, EOS."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512 + num_merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    # Twice, so that every word repeats and rare scripts get merges too.
    tokenizer.train_from_iterator(TEXT.splitlines() * 2, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + [a + b for a, b in merges] + [BOS, EOS]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges


def write_json(path, value):
    pathlib.Path(path).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def write_vocab_and_merges(folder, vocab, merges):
    """The old layout: vocab.json and merges.txt alone."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", vocab)
    lines = ["#version: 0.2"] + [f"{a} {b}" for a, b in merges]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def added(content, **flags):
    token = {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    token.update(flags)
    return token


def tokenizer_json(vocab, merges, added_tokens, **changes):
    """A tokenizer.json as the conversion of transformers 4 wrote it for CLIP: merges as texts, an older split pattern."""
    split = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": split}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [EOS, vocab.get(EOS, 0)],
            "cls": [BOS, vocab.get(BOS, 0)],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": EOS,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": [f"{a} {b}" for a, b in merges],
        },
    }
    value.update(changes)
    return value
