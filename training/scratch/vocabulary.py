"""The demo model's tokenizer: byte-level BPE over Galician text, in which the fixed prompt is few tokens.

The prompt is in the training text often enough that its words become pieces of their own: it stands before every
clip, and each of its tokens costs a row in every forward.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from speech.checkpoint import open_tokenizer
from speech.prompt import AUDIO_PLACE, DEFAULT_PROMPT

END_OF_TEXT, USER, ASSISTANT, END, AUDIO, IMAGE = range(6)
SPECIAL = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", AUDIO_PLACE, "<|image|>")
"""By their ids."""
ANSWER_END = (END, END_OF_TEXT)
"""What ends an answer in training, as the model card has it."""

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}\n"
)


def train_tokenizer(texts: Iterable[str], size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Learn pieces from `texts` and write tokenizer.json, tokenizer_config.json and the chat template.

    Args:
        texts: what the model is to write, NFC.
        size: most pieces; at least 300 (256 bytes, 6 special ones, the prompt's words).

    Raises:
        ValueError: `size` is too small.
    """
    if size < 300:
        raise ValueError(f"a vocabulary of {size} pieces has no room for bytes and prompt: give 300 or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    prompt = DEFAULT_PROMPT
    for text in SPECIAL:
        prompt = prompt.replace(text, "")
    corpus = [unicodedata.normalize("NFC", text) for text in texts]
    # more often than any pair of letters in the texts, so that its words are merged first
    n_letters = sum(map(len, corpus))
    tokenizer.train_from_iterator([*corpus, *[prompt] * (n_letters // 20 + 100)], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return open_tokenizer(folder)


_CONFIG = {
    "backend": "tokenizers",
    "bos_token": SPECIAL[END_OF_TEXT],
    "clean_up_tokenization_spaces": False,
    "eos_token": SPECIAL[END_OF_TEXT],
    "extra_special_tokens": list(SPECIAL[1:]),
    "model_max_length": 2048,
    "pad_token": SPECIAL[END_OF_TEXT],
    "padding_side": "left",
    "tokenizer_class": "TokenizersBackend",
}
