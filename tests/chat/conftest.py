"""Small tokenizers of the kinds that matter: Llama 3's, ChatML's, one without chat markup, and a SentencePiece one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

Messages = list[dict[str, Any]]

LLAMA_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
]
_TEXT = [
    "The boat is on the lake.",
    "Vene on järvellä, eikö niin?",
    "system user assistant\n\n",
    "def f(x):\n    return x",
]


def byte_level_tokenizer(special: Sequence[str], **roles: str) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on a few lines: any text comes back from its ids."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_TEXT * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, **roles)


@pytest.fixture(scope="session")
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 3's: it puts a BOS before any text unless told not to, which before a rendered chat is a second one."""
    tokenizer = byte_level_tokenizer(LLAMA_TOKENS, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def chatml_tokenizer() -> PreTrainedTokenizerFast:
    """As SmolLM2's: BOS is the token that opens every turn, and the pad token is the one that ends it."""
    return byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )


@pytest.fixture(scope="session")
def base_tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer(["<s>", "</s>", "<pad>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="session")
def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2's: a blank goes before whatever text is tokenised, and characters it has not seen become bytes."""
    special = ["<unk>", "<s>", "</s>"]
    letters = sorted(set("".join(_TEXT)) | {"▁"})
    vocabulary = {token: at for at, token in enumerate([*special, *(f"<0x{byte:02X}>" for byte in range(256))])}
    for letter in letters:
        vocabulary.setdefault(letter, len(vocabulary))
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def tokenizers(
    llama_tokenizer: PreTrainedTokenizerFast,
    chatml_tokenizer: PreTrainedTokenizerFast,
    base_tokenizer: PreTrainedTokenizerFast,
) -> dict[str, PreTrainedTokenizerFast]:
    """The tokenizer that goes with each built-in template."""
    return {"llama-3.1": llama_tokenizer, "chatml": chatml_tokenizer, "plain": base_tokenizer}
