"""Template, loss mask, BOS and EOS: what a conversation becomes, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.preflight.findings import Finding, error, note, warning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template
    from posttrain.preflight.subject import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Check how tokenizer, chat template and embedding fit together."""
    if subject.makes_model:
        yield note("tokenizer: it is trained with the base model; template and tokens are checked once that is there")
        return
    recipe = subject.recipe
    if recipe.sft is None and recipe.dpo is None:
        return
    try:
        equipped = subject.equipped
    except UserError as problem:
        local = subject.base_folder is not None
        yield from ((error if local else warning)(f"model: {text}") for text in problem.problems)
        return
    assert equipped is not None, "only a model that is still to be made has no tokenizer"
    tokenizer, template = equipped
    from posttrain.chat import check_tokenizer, require_markers

    rows = None
    try:
        found = subject.config.get("vocab_size")
        rows = found if isinstance(found, int) else None
    except UserError:
        yield note("model: the size of its embedding is not known, so it was not compared with the tokenizer")
    problems = check_tokenizer(tokenizer, template, rows)
    if recipe.sft is not None:
        try:
            require_markers(template, recipe.sft.loss_on)
        except UserError as problem:
            problems += problem.problems
    yield from (error(text) for text in problems)
    if rows is not None and not problems:
        spare = f", {rows - len(tokenizer):,} rows without a token" if rows > len(tokenizer) else ""
        yield note(f"embedding: {rows:,} rows for {len(tokenizer):,} tokens{spare}")
    if not problems:
        yield from _bos(tokenizer, template)
        yield from _stops(subject, tokenizer, template)
        if recipe.sft is not None:
            yield from _mask(tokenizer, template, recipe.sft.loss_on)


def _bos(tokenizer: PreTrainedTokenizerBase, template: Template) -> Iterator[Finding]:
    from posttrain.chat.template import emits_bos

    if emits_bos(tokenizer, template):  # how often is checked by `check_tokenizer`
        yield note(f"BOS: {tokenizer.bos_token} opens each conversation, once")
        return
    added = list(tokenizer("a")["input_ids"])[:1]
    if tokenizer.bos_token_id is not None and added == [tokenizer.bos_token_id]:
        yield warning(
            f"BOS: the tokenizer puts {tokenizer.bos_token} in front of any text, so the base has probably never seen "
            f"one without it, and the chat template {template.name} writes none; add "
            "{{ bos_token }} at its beginning"
        )
    else:
        yield note("BOS: none, in the template as in the tokenizer")


def _stops(subject: Subject, tokenizer: PreTrainedTokenizerBase, template: Template) -> Iterator[Finding]:
    import json

    from posttrain.chat import end_of_turn_id
    from posttrain.train.tokenizer import stop_ids

    known = None
    folder = subject.base_folder
    if folder is not None and (folder / "generation_config.json").is_file():
        try:
            known = json.loads((folder / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
        except ValueError:
            yield warning(f"model.base: {folder}/generation_config.json is not JSON; it is not used")
    stops = stop_ids(tokenizer, template, known)
    if end_of_turn_id(tokenizer, template) not in stops:
        yield error("EOS: generation would not stop at the end of a turn")
    shown = ", ".join(str(token) for token in tokenizer.convert_ids_to_tokens(stops))
    yield note(f"EOS: generation will stop at {shown}; the first ends a turn")


def _mask(tokenizer: PreTrainedTokenizerBase, template: Template, loss_on: str) -> Iterator[Finding]:
    """Encode two turns and compare what is trained with what the assistant said."""
    from posttrain.chat import Encoder, Refusal, end_of_turn_id
    from posttrain.chat.template import PROBE_TWO_TURNS

    (result,) = Encoder(tokenizer, template).chats([PROBE_TWO_TURNS], loss_on)
    if isinstance(result, Refusal):
        yield error(f"template: {template.name} cannot encode a plain exchange: {result.reason}")
        return
    if loss_on == "all":
        yield note("loss mask: every token is trained, the user's too (sft.loss_on: all)")
        return
    trained = [token for stretch in result if stretch.trained for token in stretch.ids]
    said = [str(turn["content"]) for turn in PROBE_TWO_TURNS if turn["role"] == "assistant"]
    asked = [str(turn["content"]) for turn in PROBE_TWO_TURNS if turn["role"] == "user"]
    text = tokenizer.decode(trained)
    if text.count(said[0]) != len(said) or any(question in text for question in asked):
        yield error(
            f"loss mask: of two turns the template {template.name} has {text!r} trained, which is not the assistant's "
            "text alone; correct its generation markers"
        )
    elif trained.count(end_of_turn_id(tokenizer, template)) != len(said):
        yield error(
            f"loss mask: the template {template.name} leaves the end of a turn untrained, so the model would not learn "
            "to stop; put it inside the generation markers"
        )
    else:
        yield note(f"loss mask: the assistant's text and its end of turn are trained ({text!r} of a probe)")
