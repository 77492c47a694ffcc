"""What a judge said of one answer, or of two: read from its text exactly as asked for, kept in a file of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from posttrain.data.generate.ratings import parse_reasoned, parse_score, parse_structured, rating_schema, reasoned
from posttrain.errors import UserError

Kind: TypeAlias = Literal["grade", "compare"]  # the names of the prompts
Choice: TypeAlias = Literal["A", "B", "tie"]

LOWEST, HIGHEST = 1, 10  # points of a grade
TIE: Choice = "tie"
CHOICES: tuple[Choice, ...] = ("A", "B", TIE)
SCHEMAS: dict[Kind, dict[str, Any]] = {
    "grade": rating_schema(LOWEST, HIGHEST),
    "compare": reasoned("verdict", {"type": "string", "enum": list(CHOICES)}),
}
UNREADABLE = "unreadable"  # no try held a verdict
NO_ANSWER = "no answer"  # the model that is judged gave none

_MARKS = r"[ \t\u00a0*_`]*"  # Markdown's emphasis and code
_LABEL = r"(?:(?:final )?verdict|(?:lopullinen )?ratkaisu)"
_LABELLED = re.compile(rf"(?<![^\W_]){_LABEL}{_MARKS}:", re.IGNORECASE)
_LINE = re.compile(rf"[ \t#>-]*{_MARKS}{_LABEL}{_MARKS}:{_MARKS}(A|B|tie|tasan){_MARKS}\.?{_MARKS}", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one request, with its repetitions, came to.

    Attributes:
        question: The question's id.
        category: Its category, or the data set it is from; None where there is none.
        turn: Which of the user's messages was answered, from 1.
        models: The model graded; or the two compared, in the order in which the judge saw them, as A and B.
        kind: Whether an answer was graded or two were compared.
        lengths: Characters of the answers judged, in the order of `models`.
        prompt_sha256: SHA-256 of what the judge was asked, in hex; None if it was not.
        said: What it said, one text a try; only the last can hold the verdict.
        score: From 1 to 10, of a grade.
        choice: `A`, `B` or `tie`, of a comparison.
        unjudged: Why there is neither, countable up to the first colon.
        difficulty: Of the question, where its file says so.
    """

    question: str
    category: str | None
    turn: int
    models: tuple[str, ...]
    kind: Kind
    lengths: tuple[int, ...]
    prompt_sha256: str | None
    said: tuple[str, ...] = ()
    score: float | None = None
    choice: Choice | None = None
    unjudged: str | None = None
    difficulty: float | None = None

    def points(self, model: str) -> float | None:
        """Return 1 where the answer of `model` is preferred, 0 where the other is, 0.5 for a tie; None if unjudged."""
        if self.choice is None or self.choice == TIE:
            return None if self.choice is None else 0.5
        return float(self.models[CHOICES.index(self.choice)] == model)


def read_said(kind: Kind, text: str, structured: bool) -> float | Choice | None:
    """Return the grade or the choice that a text states, or None; nothing is guessed.

    Args:
        kind: What was asked for.
        text: What the judge wrote.
        structured: Whether it was held to the JSON schema.
    """
    if kind == "grade":
        return (parse_structured if structured else parse_score)(text, LOWEST, HIGHEST)
    if not structured:
        return parse_choice(text)
    stated = parse_reasoned(text, "verdict")
    return next((choice for choice in CHOICES if stated == choice), None)


def parse_choice(text: str) -> Choice | None:
    """Return what the last line states, such as `Verdict: A`, or None.

    The label is `Verdict` or `Ratkaisu`, the choice `A`, `B`, `tie` or `tasan`, in any case; Markdown's emphasis,
    headings, quotes and list marks are passed over. The line holds nothing else, and nothing but blanks comes after it:
    whatever follows a verdict may take it back.
    """
    lines = text.rstrip().splitlines()
    if not lines or not _LABELLED.search(lines[-1]):
        return None
    line = _LINE.fullmatch(lines[-1])
    if line is None:
        return None
    stated = line[1].lower()
    return TIE if stated in ("tie", "tasan") else CHOICES[stated == "b"]


def write_verdicts(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write verdicts as JSON lines in one step, so that a file that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for verdict in verdicts:
            file.write(json.dumps(asdict(verdict), ensure_ascii=False, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_verdicts(path: Path) -> list[Verdict]:
    """Read a file of verdicts.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        # Not `splitlines`, for which a U+2028 inside a text would end the line.
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_verdict(json.loads(line)) for line in lines if line]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; judge the answers again") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is damaged ({error}); judge the answers again") from error


def _verdict(record: dict[str, Any]) -> Verdict:
    return Verdict(**{**record, **{key: tuple(record[key]) for key in ("models", "lengths", "said")}})
