"""`translate`: a teacher translates a row line by line; what must stay as it is is hidden from it and put back.

A line by itself is what a model translates most dependably, and what it cannot lose lines of; but it does not see the
other lines. Lines that are the same in a row are asked once, so that a refrain stays one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.data.generate.language_names import direction
from posttrain.data.generate.masking import Line, fault, lines_of, restored
from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.requests import LENGTH, Answer, Asker, Failed, Request
from posttrain.data.generate.rollouts.again import ask_again
from posttrain.data.generate.rollouts.together import together
from posttrain.data.generate.rows import InputRow, Outcome, Rollout
from posttrain.data.generate.translation_gates import judge, problems_of_gates
from posttrain.data.languages import language_code
from posttrain.data.rows import BadRow, Message, turn
from posttrain.recipe.schema_generate import Translate

PROMPT = "translate"
RETRIES = 1
RETRY_TEMPERATURE = 0.5  # of a teacher that is asked again


def translate(options: Translate, seed: int) -> Rollout:
    """Return the rollout of a `translate` entry.

    A line whose translation is broken off, loses, repeats or invents a mark, is empty, or has several lines is asked
    again once; then the row fails, as it does for the gates of `translation_gates` and where it is in the language
    already. With `turns: user` all other turns stay as they are, for a `respond` entry to write anew. The metadata get
    `translated_from`, the `original` row's id, `turns_translated`, `lines_translated`, `lines_truncated` where
    `keep_truncated` let some through, and the gates' scores; no copy of the original.

    Args:
        options: The entry, in which `problems_of_translate` finds nothing.
        seed: The recipe's.
    """
    options = replace(options, to=language_code(options.to))

    async def rollout(row: InputRow, asker: Asker) -> Outcome:
        chosen = [
            place for place, message in enumerate(row.messages) if options.turns == "all" or message["role"] == "user"
        ]
        if not chosen:
            return Outcome(failed="no turn to translate")
        if language_code(row.language) == options.to:
            return Outcome(failed=f"in the language already: {options.to}")
        texts = {place: lines_of(row.messages[place]["content"]) for place in chosen}
        same: defaultdict[str, list[Line]] = defaultdict(list)
        for lines in texts.values():
            for line in lines:
                if line.body:
                    same[line.body].append(line)
        translating = _Translating(options, seed, row, asker)
        answers = await together(translating.body(lines) for lines in same.values())
        failures = [answer.reason for answer in answers if isinstance(answer, Failed)]
        if failures:
            return Outcome(failed=failures[0])
        done = [answer for answer in answers if not isinstance(answer, Failed)]
        return _outcome(options, row, texts, dict(zip(same, done, strict=True)))

    return rollout


@dataclass(frozen=True)
class _Translation:
    text: str
    truncated: bool


@dataclass(frozen=True)
class _Translating:
    """One row being translated."""

    options: Translate
    seed: int
    row: InputRow
    asker: Asker

    async def body(self, lines: Sequence[Line]) -> _Translation:
        """Translate the body that some lines share.

        Raises:
            Failed: A request failed for good, or no try gave a translation.
        """
        body = lines[0].body

        def read(answer: Answer) -> _Translation | Failed:
            text = answer.text.strip()
            found = _fault(lines, text)
            return _Translation(text, answer.finish_reason == LENGTH) if found is None else Failed(found)

        found = await ask_again(
            self.asker,
            "teacher",
            Request(messages=self._messages(body), sampling=self.options.sampling),
            read,
            retries=RETRIES,
            warmer=RETRY_TEMPERATURE,
            seed=self.seed,
            row_id=self.row.id,
            purpose=f"translate {body}",
            keep_truncated=self.options.keep_truncated,
        )
        if isinstance(found, Failed):
            raise found
        return found

    def _messages(self, body: str) -> tuple[Message, ...]:
        """Return the request for a line: what to do, with the first line, and the examples as turns before the last.

        There is no system turn, which some templates refuse; so the beginning is the same for all lines of a row, and
        a server that keeps prefixes reads it once.
        """
        found = prompt(PROMPT, self.options.to)
        names = direction(language_code(self.row.language), self.options.to, found.language)
        asked = [*(example.source for example in self.options.examples), body]
        first = found.render(source=names.source, target=names.target, line=asked[0])
        messages: list[Message] = [{"role": "user", "content": first}]
        for example, line in zip(self.options.examples, asked[1:], strict=True):
            messages.append({"role": "assistant", "content": example.target})
            messages.append({"role": "user", "content": line})
        return tuple(messages)


def _fault(lines: Sequence[Line], text: str) -> str | None:
    if not text:
        return "empty translation"
    if "\n" in text:
        return f"several lines for one: {text.count(chr(10)) + 1}"
    return next((found for line in lines if (found := fault(line, text))), None)


def _outcome(
    options: Translate, row: InputRow, texts: Mapping[int, Sequence[Line]], done: Mapping[str, _Translation]
) -> Outcome:
    bodies = {body: translation.text for body, translation in done.items()}
    translations = {place: "\n".join(restored(line, bodies) for line in lines) for place, lines in texts.items()}
    scores, failed = judge(options, [row.messages[place]["content"] for place in texts], list(translations.values()))
    meta: dict[str, Any] = {
        "translated_from": row.language,
        "original": row.id,
        "turns_translated": options.turns,
        "lines_translated": sum(bool(line.body) for lines in texts.values() for line in lines),
        **scores,
    }
    if truncated := sum(translation.truncated for translation in done.values()):
        meta["lines_truncated"] = truncated
    if failed:
        return Outcome(meta=meta, failed=failed)
    try:
        messages = [
            turn(message["role"], translations[place]) if place in translations else message
            for place, message in enumerate(row.messages)
        ]
    except BadRow as bad:
        return Outcome(meta=meta, failed=str(bad))
    return Outcome(messages=messages, language=options.to, meta=meta)


def prompt_names(options: Translate) -> list[str]:
    """Return the names of the prompts that the entry uses, for `prompt_texts`."""
    return [PROMPT]


def problems_of_translate(options: Translate) -> list[str]:
    """Return what is wrong with an entry as a whole, each problem beginning with its key."""
    found = []
    for number, example in enumerate(options.examples):
        for key, text in (("source", example.source), ("target", example.target)):
            if not text.strip():
                found.append(f"examples[{number}].{key}: is blank; give a line")
            elif "\n" in text.strip():
                found.append(f"examples[{number}].{key}: has several lines; give one")
    return [*found, *problems_of_gates(options)]
