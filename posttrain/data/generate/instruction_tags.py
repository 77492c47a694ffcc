"""Labels of an instruction by a judge, in the words of Magpie's releases: difficulty, quality and category."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.requests import Answer, Asker, Failed, Request
from posttrain.data.generate.rollouts.again import ask_again
from posttrain.data.generate.rollouts.rate import RETRY_TEMPERATURE
from posttrain.data.generate.rollouts.together import together
from posttrain.data.sources.magpie import CATEGORIES, QUALITIES
from posttrain.recipe.schema_generate import Sampling

DIFFICULTIES = ("very easy", "easy", "medium", "hard", "very hard")
UNTAGGED = "untagged"  # the key of the list of labels that could not be had

_SAMPLING = Sampling(temperature=0.0, max_tokens=1024)
_RETRIES = 1
_SIGNS = " \t*_`#>\"'“”.,"  # around a label: Markdown, quotation marks, a full stop


@dataclass(frozen=True)
class Tag:
    """A label of an instruction.

    Attributes:
        column: Of Magpie's releases.
        prompt: The name of the prompt that asks for it.
        called: What opens the line with the label, in each language.
        labels: What it can be.
    """

    column: str
    prompt: str
    called: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema of an answer: the reason is written first, so that the label follows from it."""
        return {
            "type": "object",
            "properties": {"reason": {"type": "string"}, "label": {"type": "string", "enum": list(self.labels)}},
            "required": ["reason", "label"],
            "additionalProperties": False,
        }


TAGS = (
    Tag("difficulty", "difficulty", ("Difficulty", "Vaikeus"), DIFFICULTIES),
    Tag("input_quality", "quality-of-instruction", ("Quality", "Laatu"), QUALITIES),
    Tag("task_category", "category", ("Category", "Luokka"), CATEGORIES),
)


async def tags(asker: Asker, instruction: str, language: str, seed: int, row_id: str) -> dict[str, Any]:
    """Return the labels of an instruction by column; those that could not be had are named under `untagged`.

    Args:
        asker: Its judge is asked, once more for a label that cannot be read.
        instruction: What is judged.
        language: Of the prompts, if there are any in it; otherwise they are English.
        seed: The recipe's.
        row_id: From which the second try's seed derives.
    """
    found = await together(_label(asker, tag, instruction, language, seed, row_id) for tag in TAGS)
    labels = {tag.column: label for tag, label in zip(TAGS, found, strict=True) if not isinstance(label, Failed)}
    missing = [tag.column for tag in TAGS if tag.column not in labels]
    return {**labels, UNTAGGED: missing} if missing else labels


async def _label(asker: Asker, tag: Tag, instruction: str, language: str, seed: int, row_id: str) -> str | Failed:
    text = prompt(tag.prompt, language).render(instruction=instruction, structured=asker.structured)
    request = Request(
        messages=({"role": "user", "content": text},),
        sampling=_SAMPLING,
        schema=tag.schema if asker.structured else None,
    )

    def read(answer: Answer) -> str | Failed:
        label = read_structured(answer.text, tag) if asker.structured else read_line(answer.text, tag)
        return Failed("no label in the answer") if label is None else label

    return await ask_again(
        asker,
        "judge",
        request,
        read,
        retries=_RETRIES,
        warmer=RETRY_TEMPERATURE,
        seed=seed,
        row_id=row_id,
        purpose=f"tag {tag.column}",
    )


def read_line(text: str, tag: Tag) -> str | None:
    """Return the label in the last line of an answer, `Difficulty: easy`; None where it is not there, or not one.

    Markdown around it is let pass, and the case of letters. An earlier line that gives another label makes it none.
    """
    opening = "|".join(map(re.escape, tag.called))
    lines = [line.strip(_SIGNS) for line in text.strip().splitlines()]
    found = [re.fullmatch(rf"(?:{opening})[*_`]*\s*:(.*)", line, re.IGNORECASE) for line in lines]
    if not found or found[-1] is None:
        return None
    said = {match[1].strip(_SIGNS).casefold() for match in found if match}
    return _known(said.pop(), tag) if len(said) == 1 else None


def read_structured(text: str, tag: Tag) -> str | None:
    """Return the label of an answer that follows `Tag.schema`; None where it does not."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = answer.get("label") if isinstance(answer, dict) else None
    return _known(label.casefold(), tag) if isinstance(label, str) else None


def _known(said: str, tag: Tag) -> str | None:
    return next((label for label in tag.labels if label.casefold() == said), None)
