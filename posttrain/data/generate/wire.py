"""What servers send back: the answer in a body, the words of a refusal, how long to wait."""

from __future__ import annotations

import json
import re
from datetime import timezone
from email.utils import parsedate_to_datetime

from posttrain.data.generate.requests import LENGTH, Answer, Failed, Transient

_BROKEN_OFF = ("abort", "error")  # `finish_reason` of an answer that the server gave up


def answer_of(received: bytes) -> Answer:
    """Read the answer out of a body, or raise `Transient` where it is not whole or not of the agreed form."""
    try:
        body = json.loads(received)
        (choice,) = body["choices"]
        reason = choice.get("finish_reason")
        text = choice["message"].get("content") if "message" in choice else choice["text"]
        usage = body.get("usage") or {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Transient("malformed answer") from None
    if text is None and reason == "content_filter":
        raise Failed("refused by the server: content filter")
    if text is None and reason == LENGTH:
        text = ""  # a model that thinks first did not get to its answer
    if not isinstance(text, str) or not isinstance(reason, str):
        raise Transient("malformed answer")
    if reason in _BROKEN_OFF:
        raise Transient("broken off")
    read, written = (count if type(count) is int and count >= 0 else 0 for count in counts)
    return Answer(text=text, finish_reason=reason, prompt_tokens=read, completion_tokens=written)


def words_of(received: bytes) -> str:
    """Return what the body of a refusal says, in one of the forms that servers use."""
    text = received.decode("utf-8", "replace")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "message", "detail"):
        while isinstance(said, dict) and name in said:
            said = said[name]
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def wait_of(value: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait, given as seconds or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value.strip(), re.ASCII):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    if date.tzinfo is None:  # as of a date with the zone -0000
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, date.timestamp() - now)
