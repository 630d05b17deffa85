"""Small SentencePiece unigram models, trained on the text of clip_vocabulary."""

import io

import sentencepiece

from clip_vocabulary import TEXT


def train(vocab_size, **options):
    """A SentencePiece unigram model with T5's ids."""
    buffer = io.BytesIO()
    settings = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, hard_vocab_limit=False, minloglevel=2, model_type="unigram")
    settings.update(options)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT.splitlines() * 3), model_writer=buffer, vocab_size=vocab_size, **settings)
    return buffer.getvalue()
