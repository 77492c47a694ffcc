"""The tokenizer of a run: loaded beside the model, or trained on the text of a new one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.recipe.schema import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template

# The special tokens that a built-in template writes, and which of them begins, ends and pads a text.
_SPECIAL: dict[str, tuple[list[str], dict[str, str]]] = {
    "llama-3.1": (
        [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|finetune_right_pad_id|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
            "<|python_tag|>",
        ],
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|finetune_right_pad_id|>"},
    ),
    "chatml": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "plain": (
        ["<s>", "</s>", "<pad>"],
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    ),
}


def train_tokenizer(texts: Iterable[str], vocab_size: int, chat_template: str) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer with the special tokens of a built-in chat template.

    Args:
        texts: The training text; the result depends on it alone, not on its order of pieces.
        vocab_size: Tokens in all, special tokens included.
        chat_template: The name of a built-in template.

    Raises:
        UserError: If the template is not a built-in one, whose special tokens are known.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if chat_template not in _SPECIAL:
        raise UserError(
            f"model.chat_template: a new tokenizer needs one of the built-in templates {', '.join(sorted(_SPECIAL))}, "
            f"not {chat_template!r}"
        )
    tokens, named = _SPECIAL[chat_template]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    if bos := named.get("bos_token"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)


def load_tokenizer(path: str | Path, model: Model, *, local_files_only: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a folder or of a hub id.

    Args:
        path: The folder, or the id.
        model: The recipe's model, which says the revision.
        local_files_only: Take one of a hub id from the cache or not at all.

    Raises:
        UserError: If there is none, or only a slow one.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path),
            revision=model.revision if str(path) == model.base else None,
            trust_remote_code=model.trust_remote_code,
            local_files_only=local_files_only,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"the tokenizer of {path} cannot be loaded: {str(error).splitlines()[0]}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{path} has no fast tokenizer (tokenizer.json), which the loss mask needs")
    return tokenizer


def equip(tokenizer: PreTrainedTokenizerBase, model: Model) -> Template:
    """Give the tokenizer the recipe's chat template and a pad token that is never trained; return the template."""
    from posttrain.chat import choose_pad_token, resolve

    template = resolve(model.chat_template, tokenizer)
    tokenizer.pad_token = choose_pad_token(tokenizer, template)
    return template


def stop_ids(tokenizer: PreTrainedTokenizerBase, template: Template, known: int | list[int] | None = None) -> list[int]:
    """Return the ids at which generation stops: the end of a turn, the end of a text, and those the model has."""
    from posttrain.chat import end_of_turn_id

    of_model = known if isinstance(known, list) else [known]
    ids: list[Any] = [end_of_turn_id(tokenizer, template), tokenizer.eos_token_id, *of_model]
    return list(dict.fromkeys(int(value) for value in ids if value is not None))
