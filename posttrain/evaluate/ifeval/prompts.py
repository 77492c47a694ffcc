"""Prompts with their instructions, as rows of the shape of google/IFEval."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from posttrain.assets import locate
from posttrain.errors import UserError
from posttrain.evaluate.ifeval.base import BadValue
from posttrain.evaluate.ifeval.registry import VERIFIERS
from posttrain.evaluate.ifeval.rules import LANGUAGES
from posttrain.recipe.suggest import did_you_mean

_REPORTED = 20  # problems of one file; a file of another kind would have one a line
_SHOWN = 80  # characters of a bad value


@dataclass(frozen=True)
class Instruction:
    """One instruction of a prompt: an id of `VERIFIERS`, and the arguments that its verifier takes."""

    id: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A prompt and what its response must follow.

    Attributes:
        key: Identifies it in its file.
        prompt: What the model is asked.
        language: The language whose rules hold, an ISO 639-1 code of `LANGUAGES`.
        instructions: At least one, in the order of the file.
    """

    key: int | str
    prompt: str
    language: str
    instructions: tuple[Instruction, ...]


def load_prompts(path: str | Path, language: str) -> list[Prompt]:
    """Read the prompts of a file of JSON lines.

    Args:
        path: The file, `builtin:…` for one of the package's.
        language: The language that they are written in, `en` or `fi`.

    Raises:
        UserError: The file cannot be read, or rows of it are not as `parse_prompts` says.
    """
    check_language(language)
    file = Path(locate(str(path))).expanduser()
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of IFEval prompts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    lines = ((f"{path}:{number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return _collect(((where, _parse(line)) for where, line in lines), language, str(path))


def parse_prompts(rows: Iterable[Mapping[str, Any]], language: str, source: str) -> list[Prompt]:
    """Take prompts from rows that have been read already, such as those of a hub dataset.

    Each row has `key`, `prompt`, `instruction_id_list`, and in `kwargs` one mapping for each instruction. An argument
    that is null is as good as absent; so is a null for a mapping. A row may state its `language`.

    Args:
        rows: The rows.
        language: The language that they are written in, `en` or `fi`.
        source: What the rows are called in messages.

    Raises:
        UserError: There is no row; or rows lack a field, name an instruction that there is not, lack an argument of
            one, have one too many or one of a wrong value, state another language, or repeat a key. The message names
            the row and the field, for the first 20 problems.
    """
    check_language(language)
    return _collect(((f"{source}: row {number}", row) for number, row in enumerate(rows, 1)), language, source)


def check_language(language: str) -> None:
    """Check that there are rules for a language.

    Raises:
        UserError: There are none.
    """
    if language not in LANGUAGES:
        raise UserError(f"IFEval: there are no rules for the language {language!r}; known: {', '.join(LANGUAGES)}")


def _parse(line: str) -> Any:
    """Return a line's value, None where it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _collect(rows: Iterable[tuple[str, Any]], language: str, source: str) -> list[Prompt]:
    """Return the prompts of rows; report all that is wrong with them together."""
    prompts: list[Prompt] = []
    problems: list[str] = []
    seen: dict[int | str, str] = {}
    for where, row in rows:
        if not isinstance(row, Mapping):
            problems.append(f"{where}: not a JSON object with key, prompt, instruction_id_list and kwargs")
            continue
        found = [f"{where}: {problem}" for problem in _row_problems(row, language)]
        if not found and row["key"] in seen:
            found.append(f"{where}: key: {row['key']!r} is the key of {seen[row['key']]} too")
        problems += found
        if not found:
            seen[row["key"]] = where
            instructions = tuple(
                Instruction(name, _arguments(name, given or {}, language))
                for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True)
            )
            prompts.append(Prompt(row["key"], row["prompt"], language, instructions))
    if problems:
        more = len(problems) - _REPORTED
        raise UserError(problems[:_REPORTED] + ([f"{source}: {more} more problems"] if more > 0 else []))
    if not prompts:
        raise UserError(f"{source}: there is no IFEval prompt in it")
    return prompts


def _row_problems(row: Mapping[str, Any], language: str) -> Iterator[str]:
    """Yield what is wrong with a row, each with its field."""
    key, prompt, stated = row.get("key"), row.get("prompt"), row.get("language")
    if isinstance(key, bool) or not isinstance(key, int | str):
        yield f"key: must be a whole number or text, not {_show(key)}"
    if not isinstance(prompt, str) or not prompt.strip():
        yield f"prompt: must be text, not {_show(prompt)}"
    if stated is not None and stated != language:
        yield f"language: is {_show(stated)}, but the prompts are read as {language!r}"
    names, given = row.get("instruction_id_list"), row.get("kwargs")
    if not _is_list(names) or not names:
        yield f"instruction_id_list: must be a list of instruction ids, not {_show(names)}"
    elif not _is_list(given) or len(given) != len(names):
        yield f"kwargs: must be a list of {len(names)} mappings, one for each instruction, not {_show(given)}"
    else:
        for index, (name, arguments) in enumerate(zip(names, given, strict=True)):
            yield from _instruction_problems(index, name, _composed(arguments, language))


def _instruction_problems(index: int, name: Any, given: Any) -> Iterator[str]:
    """Yield what is wrong with the instruction of an index."""
    verifier = VERIFIERS.get(name) if isinstance(name, str) else None
    if verifier is None:
        hint = did_you_mean(str(name), VERIFIERS)
        yield f"instruction_id_list[{index}]: there is no instruction {_show(name)}; {hint}"
        return
    where = f"kwargs[{index}]"
    if given is not None and not isinstance(given, Mapping):
        yield f"{where}: must be a mapping, not {_show(given)}"
        return
    present = {key: value for key, value in (given or {}).items() if value is not None}
    for key in present:
        if key not in verifier.parameters:
            takes = f"takes {', '.join(verifier.parameters)}" if verifier.parameters else "takes nothing"
            yield f"{where}.{key}: {name} {takes}"
    values: dict[str, Any] = {}
    for key, parameter in verifier.parameters.items():
        try:
            values[key] = parameter(present.get(key))
        except BadValue as error:
            yield f"{where}.{key}: {name} needs {error}, not {_show(present.get(key))}"
    # The one pair of arguments that may each be right by itself and yet can never be followed together.
    nth, paragraphs = values.get("nth_paragraph"), values.get("num_paragraphs")
    if nth is not None and paragraphs is not None and nth > paragraphs:
        yield f"{where}.nth_paragraph: is {nth}, of only {paragraphs} paragraphs"


def _arguments(name: str, given: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return the arguments of an instruction as its verifier takes them, nulls left out."""
    given = _composed(given, language)
    return {key: parameter(given[key]) for key, parameter in VERIFIERS[name].parameters.items()}


def _composed(value: Any, language: str) -> Any:
    """Compose the letters of arguments where those of the responses are."""
    if not LANGUAGES[language].composed:
        return value
    if isinstance(value, Mapping):
        return {key: _composed(item, language) for key, item in value.items()}
    if _is_list(value):
        return [_composed(item, language) for item in value]
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _show(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
