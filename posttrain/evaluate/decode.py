"""Greedy answers in batches: the same for any number of prompts, and kept batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.errors import UserError
from posttrain.evaluate.kept import Kept, key_of

if TYPE_CHECKING:
    from posttrain.data.rows import Message
    from posttrain.evaluate.checkpoints import Loaded

STOP = "stop"  # the `finish_reason` of an answer that the model ended, or a stop string did
LENGTH = "length"  # of one that reached its most tokens
REFUSED = "refused"  # of a prompt that the model cannot be asked
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Prompt:
    """A text that a model is given, its tokens, and where the answer ends at the latest."""

    text: str
    ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """An answer, and why it ended: `stop`, `length` or `refused`, and then `note` says why."""

    text: str
    finish_reason: str
    note: str | None = None


def chat_text(loaded: Loaded, messages: Sequence[Message]) -> str:
    """Return a conversation as the model is given it: through its chat template, up to the answer.

    A model without a chat template is given the turns' text, with a blank line after each.

    Raises:
        UserError: The chat template refuses the conversation.
    """
    from posttrain.chat import TemplateRefusal, render

    encoding = loaded.encoding
    if encoding.template is None:
        return "".join(f"{message['content']}\n\n" for message in messages)
    try:
        special = encoding.tokenizer.special_tokens_map
        return str(render(encoding.template.text, messages, special, add_generation_prompt=True).text)
    except TemplateRefusal as error:
        name = loaded.checkpoint.name
        raise UserError(f"eval: {name}: the chat template refuses a conversation: {error}") from error


def ask(
    loaded: Loaded,
    conversations: Sequence[Sequence[Message]],
    *,
    max_tokens: int,
    batch_size: int,
    store: Path | None = None,
    advance: Advance | None = None,
) -> list[tuple[str, Decoded]]:
    """Answer conversations greedily, each ending with a user turn.

    Returns:
        For each the text that the model was given, and its answer. A conversation in which a special token of the
        model's is written out is refused: it would become that token.
    """
    from posttrain.chat.messages import fault_in

    faults = [fault_in(messages, loaded.special) for messages in conversations]
    texts = ["" if fault else chat_text(loaded, each) for each, fault in zip(conversations, faults, strict=True)]
    asked = [
        prompt_of(loaded, text, rendered=loaded.chats, max_tokens=max_tokens)
        for text, fault in zip(texts, faults, strict=True)
        if not fault
    ]
    if advance is not None:
        advance(len(texts) - len(asked))
    answers = iter(decode(loaded, asked, batch_size=batch_size, store=store, advance=advance))
    return [
        (text, Decoded("", REFUSED, fault) if fault else next(answers))
        for text, fault in zip(texts, faults, strict=True)
    ]


def prompt_of(loaded: Loaded, text: str, *, rendered: bool, max_tokens: int, stop: Sequence[str] = ()) -> Prompt:
    """Return a text as a prompt; `rendered` says that it came through a chat template, with its BOS written out."""
    tokenizer = loaded.encoding.tokenizer
    ids = tokenizer(text, add_special_tokens=not rendered)["input_ids"]
    return Prompt(text, tuple(ids), max_tokens, tuple(stop))


def batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Group prompts of similar length; the longest first, so that memory that does not suffice runs out at once.

    Returns:
        Numbers of prompts, `batch_size` a batch but for the last.
    """
    order = sorted(range(len(prompts)), key=lambda number: (-len(prompts[number].ids), number))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def decode(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    store: Path | None = None,
    advance: Advance | None = None,
) -> list[Decoded]:
    """Answer prompts greedily.

    Each batch is padded on the left to its longest prompt. In float32 an answer does not depend on the others in its
    batch, but for ties nearer than rounding; in half precision it may.

    Args:
        loaded: The model.
        prompts: What to answer.
        batch_size: Prompts a batch.
        store: A file to which each finished batch is added; what is in it already is not asked again.
        advance: Called with the number of prompts that have been answered.

    Returns:
        One answer for each prompt, in their order.

    Raises:
        UserError: The model's logits are not numbers.
    """
    answers: list[Decoded | None] = [_misfit(prompt, loaded.context) for prompt in prompts]
    todo = [number for number, answer in enumerate(answers) if answer is None]
    if advance is not None:
        advance(len(prompts) - len(todo))
    kept = Kept(store)
    for batch in batches([prompts[number] for number in todo], batch_size):
        numbers = [todo[place] for place in batch]
        together = [prompts[number] for number in numbers]
        key = key_of([[prompt.ids, prompt.max_tokens, prompt.stop] for prompt in together])
        plain = kept.get(key) or kept.add(key, [astuple(answer) for answer in _generate(loaded, together)])
        for number, answer in zip(numbers, plain, strict=True):
            answers[number] = Decoded(*answer)
        if advance is not None:
            advance(len(numbers))
    assert all(answer is not None for answer in answers)
    return [answer for answer in answers if answer is not None]


def _misfit(prompt: Prompt, context: int | None) -> Decoded | None:
    if not prompt.ids:
        return Decoded("", REFUSED, "the prompt is empty")
    if context is not None and len(prompt.ids) >= context:
        return Decoded("", REFUSED, f"the prompt is too long: {len(prompt.ids)} tokens, in a context of {context}")
    return None


def _generate(loaded: Loaded, prompts: Sequence[Prompt]) -> list[Decoded]:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    from posttrain.data.generate.sampling import Draw, Limit, RowEndings, RowSampler

    device = loaded.model.get_input_embeddings().weight.device
    pad = next(iter(loaded.stop_ids), 0)  # masked, so that any will do
    width = max(len(prompt.ids) for prompt in prompts)
    most = [_most(prompt, loaded.context) for prompt in prompts]
    greedy = RowSampler([Draw(0.0, 1.0, 0) for _ in prompts], device)
    limits = [Limit(limit, prompt.stop) for limit, prompt in zip(most, prompts, strict=True)]
    endings = RowEndings(limits, loaded.stop_ids, loaded.encoding.tokenizer, lambda: False)
    ids = [[pad] * (width - len(prompt.ids)) + list(prompt.ids) for prompt in prompts]
    mask = [[0] * (width - len(prompt.ids)) + [1] * len(prompt.ids) for prompt in prompts]
    with torch.inference_mode():
        loaded.model.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=max(most), pad_token_id=pad),
            logits_processor=LogitsProcessorList([greedy]),
            stopping_criteria=StoppingCriteriaList([endings]),
        )
    if bool(greedy.broken.any()):
        raise UserError(
            f"eval: {loaded.checkpoint.name}: the logits of {loaded.checkpoint.path} are not numbers; its weights are "
            "damaged, or too large for this dtype (try eval.dtype=float32)"
        )
    rows = zip(prompts, endings.written, endings.stopped, strict=True)
    return [Decoded(_text(loaded, ids, prompt.stop), STOP if ended else LENGTH) for prompt, ids, ended in rows]


def _most(prompt: Prompt, context: int | None) -> int:
    return prompt.max_tokens if context is None else min(prompt.max_tokens, context - len(prompt.ids))


def _text(loaded: Loaded, ids: Sequence[int], stops: Sequence[str]) -> str:
    """Decode an answer without special tokens, up to the first stop string."""
    text: str = loaded.encoding.tokenizer.decode(
        list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    ends = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    return text[: min(ends)] if ends else text
