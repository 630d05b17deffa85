"""Prompts that tokenizers stumble over: hand-picked ones, random mixtures, and all of Unicode."""

import random
import unicodedata

from clip_vocabulary import BOS, EOS

HAND_PICKED = [
    "", " ", "   ", "\t", "\n\r\n", "\u00a0", "\u3000\u2003", "a", "A", "!", "!!!", "a photo of a cat", "A Photo Of A CAT",
    "  leading and trailing  ", "tabs\tand\nnewlines\r\nhere", "it's we've they're I'm you'll she'd don't IT'S WE'VE",
    "'s", "''s", "'S 'T 'RE", "x's's's", "it\u2019s curly", "'tis 'twas rock'n'roll o'clock", "don''t", "l'\u00e9t\u00e9",
    EOS, BOS, f" {EOS} ", f"a {EOS} b", f"a{EOS}b", f"{BOS}a cat{EOS}", f"{EOS}{EOS}", f"{EOS}!!", f"!!{EOS}!!", f"{EOS}'s",
    EOS.upper(), f"a {EOS.upper()} b", f"{EOS.upper()}!", f"{BOS.upper()}{EOS.upper()}", "<|EndOfText|>s", "a!<|ENDOFTEXT|>",
    "<|endoftext", "<|endoftext|", "<|startoftext|>>", "< |endoftext|>", "<|startoftext|><|startoftext|>'s",
    "1234567890", "3.14159", "100%", "2024-05-17", "v1.5", "\u00bd \u00b2 \u2167 \u0663\u0664 \u4e00", "1st 2nd 3rd", "a1b2c3",
    "hello,world", "hello , world", "(masterpiece:1.2), [bad], {x}", "--ar 16:9", "a_b-c.d/e\\f", "<lora:x:0.8>", "#tag @user",
    "caf\u00e9", "cafe\u0301", "CAFE\u0301", "\u00c5 \u212b A\u030a", "o\u0302\u0323 o\u0323\u0302 \u1ed9", "q\u0307\u0323", "\u0301", "\u0301\u0323 a",
    "\u0130stanbul", "I\u0307", "\u0131", "STRASSE Stra\u00dfe \u1e9e", "\u03a3\u03a3\u03a3 \u039f\u0394\u039f\u03a3", "\u01c5 \u01c4 \u01c6", "\ufb01 \ufb00",
    "\u1100\u1161\u11a8", "\uac00\u11a8", "\u304b\u3099 \u30cf\u309a", "\uff21\uff22\uff23", "\u2126 \u212a", "\u0340\u0341 \u0344 \u0374 \u037e \u0387",
    "\u0958 \u09dc \u0b5c \ufb1d \ufb2a", "\u4e00\u4e8c\u4e09", "\u7ea2\u8272\u7684\u5706\u5f62", "\u8d64\u3044\u5186", "\ud30c\ub780 \uc0ac\uac01\ud615",
    "\u062f\u0627\u0626\u0631\u0629 \u062d\u0645\u0631\u0627\u0621", "\u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f", "\u05e2\u05d9\u05d2\u05d5\u05dc", "\u0928\u0940\u0932\u0947", "\u0e27\u0e07\u0e01\u0e25\u0e21\u0e2a\u0e35\u0e41\u0e14\u0e07",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", "\u2764\ufe0f\u200d\U0001f525 love",
    "a\u200bb", "a\u200db", "a\u00adb", "\ufeffbom", "a\u2028b\u2029c", "a\x85b", "a\x1cb\x1db", "a\x00b", "\x07bell", "a\x0bb\x0cc", "\u180e", "a\u180eb",
    "\u1680x\u202fy\u205fz", "nbsp\u00a0here", "\u2000\u2001\u2002", "\u200e\u200fmarks", "\ue000private", "\U000f0000", "\uffff\ufffe", "\U0010ffff",
    "\u0378 unassigned", "\U0001d400\U0001d41a math", "\U00010400\U00010428 deseret", "\u1e00\u1e01", "\ua7cb \ua7da \ua7dc \u1c89", "\U00010d50 \U00010d70 \U00016ea0",
    "<cat-toy>", "a <cat-toy> on a table", "a<cat-toy>b", "<CAT-TOY>", "<cat-toy><cat-toy>", "sks", "sks dog", "asks sks sksx", "SKS", "sks, sks!", "sks_",
    "blue sky", "Blue Sky", "BLUE   SKY", "a blue\tsky b", "blue skyline", "<l> x <r> y <lr> z", "a   <l>   b", "a   <r>   b", "a   <lr>   b <lr>", "<l><r><lr> ",
    "\u2003<lr>\u3000x", "[BOS] a [EOS]", "[pad]", "[PAD]", "caf\u00e9<cat-toy>", "\u00e9sks \u00e9", "sks\u0301", "e\u0301", "!important", "wow! great!", "a ! b", "\uff01",
    "the quick brown fox " * 12, "astronaut riding a horse on mars, " * 9, "\u7ea2" * 90, "a" * 300, "abcdefghij" * 40, "1" * 100, "!?" * 120,
    "x " * 74, "x " * 75, "x " * 76, "x " * 77, "!" * 75, "! " * 80, EOS * 80, (EOS + " ") * 75, "cat " * 10, "cat " * 18, "cat " * 19,
]

POOLS = [
    "abcdefghijklmnopqrstuvwxyz", "ABCXYZ\u00c4\u00d6\u00dc\u0130\u03a3\u0416", " \t\n\u00a0\u2003\u3000", "0123456789\u0663\u00bd\u2167", "!?.,;:'\"-_()[]{}<>|/\\@#$%^&*+=~`",
    "\u0300\u0301\u0302\u0307\u0308\u030a\u0323\u0327\u0328\u0345\u05b0\u064b\u0651\u0e38\u0f71\u3099\u309a", "\u00e9\u00e8\u00fc\u00f1\u0142\u017c\u1ea1\u1ed9", "\u0430\u0431\u0432\u0451\u0439\u0419", "\u03b1\u03af\u03cc\u03c2",
    "\u7ea2\u8272\u7684\u8d64\u3044\u30ab\u30ac\uac00\ud7a3\u1100\u1161\u11a8", "\u0627\u0644\u0639\u0622\u0653\u05d0\u05d1\u0928\u093c\u0915", "\U0001f600\U0001f468\U0001f3fd\u200d\ufe0f\U0001f1e9", "\u200b\u00ad\ufeff\x00\x1f\x7f\x85\u180e",
]
PIECES = [EOS, BOS, "'s", "'ll", "'RE", "<cat-toy>", "sks", "Blue Sky", "<l>", "<r>", "<lr>", "!", "photo", "circle", "красный", "schöne", "café"]


def random_prompts(count, seed=7):
    rng = random.Random(seed)
    prompts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 25)):
            kind = rng.random()
            if kind < 0.2:
                parts.append(rng.choice(PIECES))
            elif kind < 0.9:
                pool = rng.choice(POOLS)
                parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 5))))
            else:
                code = rng.randrange(0x110000)
                parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "?")
        prompts.append("".join(parts))
    return prompts


def code_points():
    """All but most of the uniform ones: of ideographs, syllables, private and unassigned planes a sample does."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    uniform = lambda c: 0x4E00 < c < 0x9F00 or 0xAC10 < c < 0xD700 or 0x17010 < c < 0x187F0 or c > 0x20010 and c < 0xE0000 or c > 0xE0200
    return [c for c in codes if not uniform(c) or c % 61 == 0]


def unicode_prompts():
    """Every code point between letters and between spaces; and every combining mark among others it may be reordered with."""
    codes = code_points()
    prompts = ["x".join(map(chr, codes[i : i + 400])) for i in range(0, len(codes), 400)]
    marks = [c for c in codes if unicodedata.category(chr(c)).startswith("M")]
    prompts += ["".join(f"a\u0301{chr(c)}\u0323 o{chr(c)}\u0345\u0334 " for c in marks[i : i + 100]) for i in range(0, len(marks), 100)]
    return prompts
