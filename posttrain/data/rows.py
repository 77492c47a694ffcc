"""The two row contracts, how a row gets its id, and what makes a conversation fit to train on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

ROLES = ("system", "user", "assistant")
MAX_CHARS = 1_000_000  # of one turn: several times the longest context, so a file pasted by mistake

UNKNOWN_LANGUAGE = "und"  # ISO 639-2: undetermined
SEVERAL_LANGUAGES = "mul"  # ISO 639-2: multiple languages

Message: TypeAlias = dict[str, str]


class BadRow(ValueError):
    """Why a converter cannot use a row: a short countable reason, then a colon and the detail where there is one."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One conversation, answered or, where it ends with a user turn, still to be answered by `generate`.

    `messages` are `{"role", "content"}` turns that alternate; `language` is an ISO code, or `und` where the source
    does not say; `meta` is JSON text with sorted keys. `units` numbers what it was made from (see `SourceKind.unit`),
    so that the build can account for everything it read.
    """

    id: str
    messages: list[Message]
    source: str
    language: str
    license: str | None
    meta: str
    units: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True)
class SftRow(Conversation):
    """One conversation to train on: it ends with the assistant."""


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """A prompt and two answers to it, `chosen` the better one.

    `prompt` ends with a user turn; `chosen` and `rejected` hold one assistant turn each. `margin` is how much better
    in the source's own scale, None where the source has no scale.
    """

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    margin: float | None
    source: str
    language: str
    license: str | None
    meta: str
    units: tuple[int, ...] = field(default=(), compare=False)


Row: TypeAlias = SftRow | PreferenceRow


def without_units(row: Conversation | PreferenceRow) -> dict[str, Any]:
    """Return a row as plain values, without what only the build needs."""
    return {name: value for name, value in vars(row).items() if name != "units"}


@dataclass(frozen=True)
class Refused:
    """Something read that no row was made of: the record itself (or the text of a line), why, and its unit number."""

    source_row: Mapping[str, Any] | str
    reason: str
    unit: int

    @property
    def kind(self) -> str:
        """The countable part of the reason, without the detail."""
        return reason_kind(self.reason)


def reason_kind(reason: str) -> str:
    """Return the countable part of a reason: what stands before the first colon."""
    return reason.partition(": ")[0]


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)


def canonical(value: Any) -> str:
    """Write a value as JSON in its one form: sorted keys, no blanks, Unicode as it is."""
    return _CANONICAL.encode(value)


def meta_text(meta: Mapping[str, Any]) -> str:
    """Write a row's metadata as JSON text with sorted keys, escaped where it is not valid Unicode."""
    text = canonical(meta)
    return text if _is_unicode(text) else json.dumps(meta, sort_keys=True, separators=(",", ":"), default=str)


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: JSON escapes let half of a surrogate pair through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def content_id(value: Any) -> str:
    """Return 32 hex digits, the first 16 bytes of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def turn(role: Any, content: Any) -> Message:
    """Make one turn, checked by itself.

    Raises:
        BadRow: The role is unknown, or the content is not text, blank, longer than `MAX_CHARS`, not encodable as
            UTF-8, or holds a NUL.
    """
    if role not in ROLES:
        raise BadRow(f"unknown role: {role!r}")
    if not isinstance(content, str):
        raise BadRow(f"content is not text: the {role} turn holds {type(content).__name__}")
    if not content.strip():
        raise BadRow(f"empty content: the {role} turn is blank")
    if len(content) > MAX_CHARS:
        raise BadRow(f"content too long: the {role} turn has {len(content)} characters, more than {MAX_CHARS}")
    if not _is_unicode(content):
        raise BadRow(f"content is not valid Unicode: the {role} turn")
    if "\0" in content:
        raise BadRow(f"NUL in the content: the {role} turn")
    return {"role": role, "content": content}


def check_order(messages: Sequence[Message]) -> None:
    """Check that at most one system turn comes first and that user and assistant then alternate, user first.

    Raises:
        BadRow: They do not.
    """
    if not messages:
        raise BadRow("no messages")
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            raise BadRow(f"roles out of order: turn {number + 1} is {message['role']}, expected {expected}")


def conversation_row(
    messages: Sequence[Message],
    *,
    source: str,
    language: str,
    license: str | None,
    meta: Mapping[str, Any],
    units: tuple[int, ...],
) -> Conversation:
    """Build a row from turns made by `turn`, answered or not; `id` depends on the messages alone.

    Raises:
        BadRow: There is no user turn, or the roles do not alternate.
    """
    messages = list(messages)
    check_order(messages)
    if messages[-1]["role"] == "system":
        raise BadRow("no user turn")
    return Conversation(
        id=content_id(messages),
        messages=messages,
        source=source,
        language=language,
        license=license,
        meta=meta_text(meta),
        units=units,
    )


def sft_row(
    messages: Sequence[Message],
    *,
    source: str,
    language: str,
    license: str | None,
    meta: Mapping[str, Any],
    units: tuple[int, ...],
) -> SftRow:
    """Build an SFT row from turns made by `turn`; `id` depends on the messages alone.

    Raises:
        BadRow: There is no assistant turn, the roles do not alternate, or the last turn is not the assistant's.
    """
    if messages and all(message["role"] != "assistant" for message in messages):
        raise BadRow("no assistant turn")
    row = conversation_row(messages, source=source, language=language, license=license, meta=meta, units=units)
    if row.messages[-1]["role"] != "assistant":
        raise BadRow("last turn is not the assistant's")
    return SftRow(**vars(row))


def preference_row(
    prompt: Sequence[Message],
    chosen: str,
    rejected: str,
    *,
    margin: float | None,
    source: str,
    language: str,
    license: str | None,
    meta: Mapping[str, Any],
    units: tuple[int, ...],
) -> PreferenceRow:
    """Build a preference row; `id` depends on prompt, chosen and rejected alone.

    Raises:
        BadRow: The prompt's roles do not alternate or its last turn is not the user's; an answer is not text or is
            blank; or the answers are equal but for outer blanks.
    """
    prompt = list(prompt)
    check_order(prompt)
    if prompt[-1]["role"] != "user":
        raise BadRow("prompt does not end with a user turn")
    answers = [turn("assistant", chosen)], [turn("assistant", rejected)]
    if chosen.strip() == rejected.strip():
        raise BadRow("chosen equals rejected")
    return PreferenceRow(
        id=content_id({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]}),
        prompt=prompt,
        chosen=answers[0],
        rejected=answers[1],
        margin=margin,
        source=source,
        language=language,
        license=license,
        meta=meta_text(meta),
        units=units,
    )
