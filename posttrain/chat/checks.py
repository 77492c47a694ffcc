"""Whether a tokenizer, a chat template and a model's embedding fit together, and which token can pad."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from posttrain.chat.template import PROBE, PROBE_TWO_TURNS, Template, emits_bos, end_of_turn_id, render_probe
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that are in a vocabulary to pad with, or never to be used, in order of preference.
_PAD_CANDIDATES = (
    "<|finetune_right_pad_id|>",
    "<pad>",
    "<|pad|>",
    "<|padding|>",
    "[PAD]",
    "<|reserved_special_token_0|>",
    "<|endoftext|>",
    "<unk>",
)


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    embedding_rows: int | None,
) -> list[str]:
    """Find what would make training on these rows go wrong in silence.

    Args:
        tokenizer: As it will be used, its pad token set.
        template: The chat template.
        embedding_rows: The rows of the model's input embedding, if they are known.

    Returns:
        The problems, each a message for the user; empty where there are none.
    """
    try:
        render_probe(tokenizer, template)
    except UserError as error:  # nothing else can be told then
        return error.problems + _embedding_problems(tokenizer, embedding_rows)
    return [
        *_markup_problems(tokenizer, template),
        *_bos_problems(tokenizer, template),
        *_pad_problems(tokenizer, template),
        *_embedding_problems(tokenizer, embedding_rows),
    ]


def choose_pad_token(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    """Return a token to pad with that the model is never trained to write: the tokenizer's own, if it is such a one.

    A pad token that is also the end-of-turn token is left out of the loss by collators that go by its id, and the
    model never learns to stop.

    Raises:
        UserError: The vocabulary has none, or the template ends a turn with no one token.
    """
    trained = _trained_ends(tokenizer, template)
    own = tokenizer.pad_token
    if own and tokenizer.pad_token_id not in trained:
        return str(own)
    vocabulary = tokenizer.get_vocab()
    candidates = [*_PAD_CANDIDATES, *([tokenizer.unk_token] if tokenizer.unk_token else [])]
    markup = render_probe(tokenizer, template, PROBE_TWO_TURNS).text
    for token in candidates:
        if vocabulary.get(token) not in (None, *trained) and token not in markup:
            return str(token)
    raise UserError(
        f"the tokenizer has no token to pad with but those that end a turn or a text "
        f"({', '.join(sorted(tokenizer.convert_ids_to_tokens(sorted(trained))))}); "
        f"tried {', '.join(candidates)}. Add one to the tokenizer and a row to the model's embedding."
    )


def _trained_ends(tokenizer: PreTrainedTokenizerBase, template: Template) -> set[int]:
    ends = {end_of_turn_id(tokenizer, template)}
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)  # what ends a document in pretraining
    return ends


def _markup_problems(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[str]:
    added = tokenizer.get_added_vocab()
    markup = dict.fromkeys(re.findall(r"<\|[^<>|\s]+\|>", render_probe(tokenizer, template).text))
    if missing := [token for token in markup if token not in added]:
        problem = (
            f"the chat template {template.name} writes {', '.join(missing)}, which the tokenizer does not know as "
            "special tokens: use a template of the tokenizer's kind, or a tokenizer that has them."
        )
        return [problem]
    try:
        end_of_turn_id(tokenizer, template)
    except UserError as error:
        return error.problems
    return []


def _bos_problems(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[str]:
    if not emits_bos(tokenizer, template):
        return []
    ids: list[int] = tokenizer(render_probe(tokenizer, template, PROBE).text, add_special_tokens=False)["input_ids"]
    if (count := ids.count(tokenizer.bos_token_id)) == 1:
        return []
    problem = (
        f"the chat template {template.name} writes the BOS {tokenizer.bos_token} {count} times in one conversation: "
        "it must be there exactly once, at the beginning."
    )
    return [problem]


def _pad_problems(tokenizer: PreTrainedTokenizerBase, template: Template) -> list[str]:
    try:
        trained = _trained_ends(tokenizer, template)
    except UserError:  # told by `_markup_problems`
        return []
    if tokenizer.pad_token is None:
        fault = "the tokenizer has no pad token"
    elif tokenizer.pad_token_id in trained:
        fault = f"the pad token {tokenizer.pad_token} also ends a turn or a text, and is trained"
    else:
        return []
    try:
        return [f"{fault}: pad with {choose_pad_token(tokenizer, template)} instead."]
    except UserError as error:
        return [f"{fault}: {problem}" for problem in error.problems]


def _embedding_problems(tokenizer: PreTrainedTokenizerBase, embedding_rows: int | None) -> list[str]:
    if embedding_rows is None or embedding_rows >= len(tokenizer):
        return []
    problem = (
        f"the model's embedding has {embedding_rows} rows but the tokenizer {len(tokenizer)} tokens: ids from "
        f"{embedding_rows} on have no row. Use the tokenizer the model was trained with, or enlarge the embedding."
    )
    return [problem]
