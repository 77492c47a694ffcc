"""Which chat template a recipe means, whether it can tell the assistant's text apart, and what ends a turn."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import locate
from posttrain.chat.render import Message, Rendered, TemplateRefusal, has_generation_markers, render
from posttrain.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN = "tokenizer"
_TEMPLATES = Path(__file__).resolve().parent / "templates"
_SUFFIXES = (".jinja", ".jinja2", ".j2")

_ANSWER = "42"
PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "6 x 7?"},
    {"role": "assistant", "content": _ANSWER},
)
PROBE_TWO_TURNS: tuple[Message, ...] = (*PROBE, *PROBE)
# Blanks at the ends tell templates that trim from those that do not.
_BLANKS: tuple[Message, ...] = (
    {"role": "user", "content": " 6 x 7?\n"},
    {"role": "assistant", "content": "\n42 "},
    {"role": "user", "content": ""},
)
_SYSTEM: Message = {"role": "system", "content": "Be brief. "}


@dataclass(frozen=True)
class Template:
    """A chat template: its name in messages, its Jinja text, and whether it marks what the assistant wrote."""

    name: str
    text: str
    has_markers: bool


def builtin_templates() -> dict[str, Path]:
    """Return the files of the package's own templates by name, in order of name."""
    return {path.name.removesuffix(".jinja"): path for path in sorted(_TEMPLATES.glob("*.jinja"))}


def resolve(chat_template: str, tokenizer: PreTrainedTokenizerBase | None) -> Template:
    """Find the template that `model.chat_template` names.

    Args:
        chat_template: A built-in name, the path of a Jinja file, or `tokenizer` for the tokenizer's own.
        tokenizer: Read only for `tokenizer`.

    Raises:
        UserError: There is no such template or file, the tokenizer has none, or its text is not valid Jinja.
    """
    builtins = builtin_templates()
    if chat_template == OWN:
        text = _own_text(tokenizer)
    elif chat_template in builtins:
        text = builtins[chat_template].read_text(encoding="utf-8")
    elif chat_template.endswith(_SUFFIXES) or "/" in chat_template or "\\" in chat_template:
        text = _file_text(chat_template)
    else:
        nearest = difflib.get_close_matches(chat_template, [*builtins, OWN], n=1, cutoff=0.0)[0]
        raise UserError(
            f"model.chat_template: there is no template {chat_template!r}; the nearest is {nearest!r}. "
            f"Give one of {', '.join([*builtins, OWN])}, or the path of a .jinja file."
        )
    name = Path(chat_template).name
    _check_syntax(name, text)
    return Template(name=name, text=text, has_markers=has_generation_markers(text))


def _own_text(tokenizer: PreTrainedTokenizerBase | None) -> str:
    own: Any = getattr(tokenizer, "chat_template", None)
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        raise UserError(
            "model.chat_template: the tokenizer has no chat template of its own; "
            f"give one of {', '.join(builtin_templates())}, or the path of a .jinja file."
        )
    return str(own)


def _file_text(chat_template: str) -> str:
    path = Path(locate(chat_template)).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"model.chat_template: the file {chat_template} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.chat_template: {chat_template} cannot be read as UTF-8 text: {error}.") from error


def _check_syntax(name: str, text: str) -> None:
    from jinja2 import TemplateSyntaxError

    try:
        # It need only compile here: whether it renders with the tokenizer's special tokens is for `check_tokenizer`.
        with contextlib.suppress(TemplateRefusal):
            render(text, PROBE, {})
    except TemplateSyntaxError as error:
        raise UserError(
            f"model.chat_template: {name} is not valid Jinja: line {error.lineno}: {error.message}."
        ) from error


def require_markers(template: Template, loss_on: str) -> None:
    """Raise where the loss is to be on the assistant's text, and the template does not say where that is.

    Args:
        template: The template that rows are rendered with.
        loss_on: `assistant` or `all`, as the recipe says.

    Raises:
        UserError: With the built-in template that renders the same, if there is one.
    """
    if loss_on != "assistant" or template.has_markers:
        return
    with_system = (_SYSTEM, *PROBE, *_BLANKS)
    same = _builtins_rendering_like(template, [PROBE, _BLANKS, with_system])
    same_with_system = _builtins_rendering_like(template, [with_system])
    if same:
        advice = f"The built-in {same[0]!r} renders the same and has them: set model.chat_template={same[0]}"
    elif same_with_system:
        advice = (
            f"The built-in {same_with_system[0]!r} has them and renders the same where a conversation has a system "
            "message; where it has none, this template adds its own, and the built-in adds none: "
            f"set model.chat_template={same_with_system[0]} if that is what you want"
        )
    else:
        advice = "Put them around the assistant's text and its end-of-turn token in a copy, and name that file"
    which = "the tokenizer's own chat template" if template.name == OWN else f"the chat template {template.name}"
    raise UserError(
        f"sft.loss_on=assistant: {which} has no "
        f"{{% generation %}} … {{% endgeneration %}} markers, so the assistant's text cannot be told apart. "
        f"{advice}, or train on every token with sft.loss_on=all."
    )


def _builtins_rendering_like(template: Template, probes: Iterable[tuple[Message, ...]]) -> list[str]:
    special_tokens = {"bos_token": "<bos>", "eos_token": "<eos>"}
    views = [(probe, opened) for probe in probes for opened in (False, True)]

    def texts(text: str) -> list[str] | None:
        try:
            return [render(text, probe, special_tokens, add_generation_prompt=opened).text for probe, opened in views]
        except TemplateRefusal:
            return None

    wanted = texts(template.text)
    if wanted is None:
        return []
    return [name for name, path in builtin_templates().items() if texts(path.read_text(encoding="utf-8")) == wanted]


def render_probe(
    tokenizer: PreTrainedTokenizerBase, template: Template, probe: tuple[Message, ...] = PROBE
) -> Rendered:
    """Render a conversation that any chat template should take.

    Raises:
        UserError: The template refuses it.
    """
    try:
        return render(template.text, probe, tokenizer.special_tokens_map)
    except TemplateRefusal as error:
        raise UserError(
            f"model.chat_template: {template.name} refuses a plain exchange of a user and an assistant: {error}."
        ) from error


def turn_end(tokenizer: PreTrainedTokenizerBase, template: Template) -> tuple[str, str]:
    """Return what a template writes after the assistant's text: the end of the turn, and what comes after that.

    With generation markers the first is what is still inside them. Without, it reaches to the first special token, or
    is everything.

    Raises:
        UserError: The template refuses a plain exchange, or does not write out what the assistant said.
    """
    rendered = render_probe(tokenizer, template)
    at = rendered.text.rfind(_ANSWER)
    if at < 0 or (rendered.spans and at >= rendered.spans[-1][1]):
        raise UserError(f"model.chat_template: {template.name} does not write out the assistant's text.")
    start = at + len(_ANSWER)
    if rendered.spans:
        end = rendered.spans[-1][1]
        return rendered.text[start:end], rendered.text[end:]
    tail = rendered.text[start:]
    added = sorted(filter(None, tokenizer.get_added_vocab()), key=len, reverse=True)
    found = re.search("|".join(map(re.escape, added)) or "(?!)", tail)
    return (tail[: found.end()], tail[found.end() :]) if found else (tail, "")


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase, template: Template) -> int:
    """Return the id of the token that ends an assistant turn: the last one trained, at which generation stops.

    Raises:
        UserError: The template ends a turn with nothing, or with what this tokenizer has no one token for.
    """
    end, _ = turn_end(tokenizer, template)
    ids: list[int] = tokenizer(end, add_special_tokens=False)["input_ids"] if end else []
    added = set(tokenizer.get_added_vocab().values())
    # Some templates mark the newline after the end-of-turn token too; generation has stopped before it.
    stops = [token for token in ids if token in added]
    if stops:
        return stops[-1]
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise UserError(
            f"model.chat_template: {template.name} writes nothing after the assistant's text with this tokenizer, so a "
            "model trained on it would not stop; use a template that ends the turn, or a tokenizer with an eos token."
        )
    raise UserError(
        f"model.chat_template: {template.name} ends an assistant turn with {end!r}, which is {len(ids)} tokens of this "
        "tokenizer and none of its special ones; use a template whose markup the tokenizer knows, or another tokenizer."
    )


def emits_bos(tokenizer: PreTrainedTokenizerBase, template: Template) -> bool:
    """Say whether a template opens a conversation with the tokenizer's BOS.

    A token that is written once a turn, as `<|im_start|>` is in ChatML, is role markup even where the tokenizer also
    calls it its BOS; a template that asks for `bos_token` means the BOS. Where BOS and EOS are one token, as in GPT-2's
    vocabulary, the two cannot be told apart, and the answer is no.

    Raises:
        UserError: The template refuses a plain exchange.
    """
    bos = tokenizer.bos_token
    if not bos or bos == tokenizer.eos_token:
        return False
    once = render_probe(tokenizer, template, PROBE).text.count(bos)
    twice = render_probe(tokenizer, template, PROBE_TWO_TURNS).text.count(bos)
    return once > 0 and (once == twice or re.search(r"\bbos_token\b", template.text) is not None)
