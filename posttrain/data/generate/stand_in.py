"""An engine without a model, for smoke runs: it answers with sentences of the package's own text."""

from __future__ import annotations

import hashlib
import re
from functools import cache

from posttrain.assets import locate
from posttrain.data.generate.requests import Answer, Request

_FINNISH = re.compile(r"[äöÄÖ]|\bFinnish\b|\bsuome", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]{15,160}[.!?]")
_MARK = re.compile(r"<x\d+/>")  # of `masking`: what a line to translate keeps
_ASKS_FOR_SCORE = ("Score:", "Pisteet:")
# How prompts for points end, and those that have two answers compared.
_SCALE = re.compile(r"(Score|Pisteet): N/(\d+)\Z")
_CHOICES = {"Verdict: V": ("A", "B", "tie"), "Ratkaisu: R": ("A", "B", "tasan")}


class StandIn:
    """Answers by rule, the same to the same request: a verdict to a judge's prompt, otherwise a sentence or two.

    A prompt in Finnish, or one that speaks of Finnish, is answered in Finnish. Marks in a line to translate come back.
    """

    structured = False

    async def complete(self, request: Request) -> Answer:
        """Answer one request."""
        asked = request.prompt if request.prompt is not None else (request.messages or ())[-1]["content"]
        text = self._text(request, asked)
        return Answer(text=text, finish_reason="stop", prompt_tokens=len(asked) // 4, completion_tokens=len(text) // 4)

    def _text(self, request: Request, asked: str) -> str:
        if scale := _SCALE.search(asked):
            return f"{scale[1]}: {int(scale[2]) * 4 // 5}/{scale[2]}"
        for form, choices in _CHOICES.items():
            if asked.endswith(form):
                return f"{form[:-1]}{choices[_number(asked) % len(choices)]}"
        for label in _ASKS_FOR_SCORE:
            if label in asked:
                return f"{label} 4/5"
        said = asked if request.messages is None else " ".join(message["content"] for message in request.messages)
        sentences = _sentences("fi" if _FINNISH.search(said) else "en")
        number = _number(f"{asked}\0{request.seed}\0{request.sample}")
        written = f"{sentences[number % len(sentences)]} {sentences[number // 7 % len(sentences)]}"
        return " ".join([*_MARK.findall(asked.splitlines()[-1]), written])

    async def close(self) -> None:
        """Hold nothing."""


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


@cache
def _sentences(language: str) -> list[str]:
    """Return the sentences of the package's text in a language, each on one line."""
    with open(locate(f"builtin:text/{language}.txt"), encoding="utf-8") as stream:
        return [match[0].strip() for match in _SENTENCE.finditer(stream.read())]
