"""What a model answered, sample by sample, in `answers/MODEL/TASK.jsonl`: enough to score it without the model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from posttrain.errors import UserError

FOLDER = "answers"


@dataclass(frozen=True)
class Answer:
    """One sample, and what a model made of it.

    Attributes:
        id: The sample's, unique within its task.
        prompt_sha256: SHA-256 of the text that the model was given, in hex; over all turns where there are several.
        response: The text; a list of texts, one a turn; or the log-likelihoods of the choices.
        finish_reason: `stop`, `length` or `refused`, or a list of them; None where nothing was generated.
        item: What scoring needs of the sample: a reference, the instructions to verify.
        scores: What the sample scored, by name.
        note: Why there is no answer.
    """

    id: str
    prompt_sha256: str
    response: Any
    finish_reason: Any = None
    item: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    note: str | None = None


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def answers_file(folder: Path, model: str, task: str) -> Path:
    """Return where the answers of a model to a task are, below the stage's folder."""
    return folder / FOLDER / model / f"{task}.jsonl"


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write the answers in one step, so that a file that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        for answer in answers:
            record = {key: value for key, value in asdict(answer).items() if key != "note" or value is not None}
            file.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def read_answers(path: Path) -> list[Answer]:
    """Read a file of answers.

    Raises:
        UserError: If it is missing or damaged.
    """
    try:
        # Not `splitlines`, for which a U+2028 inside an answer would end the line.
        lines = path.read_text(encoding="utf-8").split("\n")
        return [Answer(**json.loads(line)) for line in lines if line]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; measure it again") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: is damaged ({error}); measure it again") from error
