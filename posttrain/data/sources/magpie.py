"""Magpie releases: instructions that a chat model wrote from its bare template, its answers, and labels of both.

Releases differ in their columns. Turns are in `conversations`, or in `instruction` and `response` (`input` and `output`
in the first releases) with `instruction_2`, `response_2` and so on; where a record has both, the longer one is taken.
Where it has several `responses` with their `rewards_armorm`, the best one is the answer. The id of a conversation is
`conversation_id` or `uuid`; the id of the first near-duplicate is `min_similar_conversation_id` or `min_similar_uuid`.

Distances are those of the release: Euclidean, squared, between sentence embeddings of the first instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from posttrain.data.languages import language_code
from posttrain.data.rows import BadRow, Message, Refused, SftRow, sft_row, turn
from posttrain.data.sources.base import Record, Source, SourceKind
from posttrain.data.sources.fields import convert_each, number, present, read_sharegpt, row_license

QUALITIES = ("very poor", "poor", "average", "good", "excellent")
CATEGORIES = (
    "Information seeking",
    "Reasoning",
    "Planning",
    "Editing",
    "Coding & Debugging",
    "Math",
    "Role playing",
    "Data analysis",
    "Creative writing",
    "Advice seeking",
    "Brainstorming",
    "Others",
)
SAFE = "safe"  # what Llama Guard 2 says of a conversation without a hazard


@dataclass(frozen=True, kw_only=True)
class Magpie(Source):
    """Conversations whose labels reach what is asked for; a label that is asked for and absent refuses the row.

    `min_quality` is the least `input_quality`, `min_reward` the least `instruct_reward`. With `min_neighbor_distance`
    a row stays whose nearest neighbour is farther away than that, or which is the one representative of its
    near-duplicates. `safe_only` asks for `llama_guard_2` to be `safe`. `turns` is the exact number of user turns,
    `min_turns` the least.
    """

    min_quality: Literal["very poor", "poor", "average", "good", "excellent"] | None = None
    difficulty: list[Literal["very easy", "easy", "medium", "hard", "very hard"]] | None = None
    task_categories: list[str] | None = None
    min_reward: float | None = None
    min_neighbor_distance: float | None = None
    safe_only: bool = False
    turns: int | None = None
    min_turns: int | None = None


def check(options: Magpie) -> list[str]:
    """Find categories that Magpie does not use, and numbers of turns that no row can have."""
    known = {name.casefold() for name in CATEGORIES}
    problems = [
        f"task_categories: {name!r} is not one of {', '.join(CATEGORIES)}"
        for name in options.task_categories or []
        if name.casefold() not in known
    ]
    if options.turns is not None and options.min_turns is not None:
        problems.append("min_turns: give turns or min_turns, not both")
    for key in ("turns", "min_turns"):
        value = getattr(options, key)
        if value is not None and value < 1:
            problems.append(f"{key}: {value} is less than 1")
    return problems


def _numbered(record: Record) -> list[Message]:
    """Read `instruction`, `response`, `instruction_2`, `response_2`, ... up to the first pair that is not there."""
    asked, answered = ("input", "output") if record.get("instruction") is None else ("instruction", "response")
    messages: list[Message] = []
    for place in count(1):
        suffix = f"_{place}" if place > 1 else ""
        question, answer = record.get(asked + suffix), record.get(answered + suffix)
        if place == 1 and answer is None:
            answer = _best_response(record)
        if question is None or answer is None:
            break
        messages += [turn("user", question), turn("assistant", answer)]
    return messages


def _best_response(record: Record) -> Any:
    responses, rewards = record.get("responses"), record.get("rewards_armorm")
    if not isinstance(responses, list) or not isinstance(rewards, list) or len(responses) != len(rewards):
        return None
    scores = [number(reward, "score") for reward in rewards if isinstance(reward, dict)]
    known = [score for score in scores if score is not None]
    return responses[known.index(max(known))] if known and len(known) == len(responses) else None


def read_conversation(record: Record) -> list[Message]:
    """Return the turns of a record of any release; `BadRow` where it has none or one is unfit."""
    stated = record.get("conversations")
    messages = read_sharegpt(record) if stated else []
    if not stated or record.get("instruction_2") is not None:
        numbered = _numbered(record)
        messages = numbered if len(numbered) > len(messages) else messages
    if not messages:
        raise BadRow("missing column: conversations, or instruction and response")
    return messages


def _label(record: Record, name: str) -> str:
    """Return a label in lower case; `BadRow` where it is absent."""
    value = record.get(name)
    if not isinstance(value, str):
        raise BadRow(f"{name} not stated" if value is None else f"{name} is not text: {type(value).__name__}")
    return value.strip().casefold()


def _either(record: Record, *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def is_representative(record: Record) -> bool | None:
    """Tell whether a record is the first of its near-duplicates, or has none; None where the release does not say."""
    first = _either(record, "min_similar_conversation_id", "min_similar_uuid")
    if first is not None:
        return bool(first == _either(record, "conversation_id", "uuid"))
    repeats = number(record, "repeat_count")
    if repeats is not None:
        return repeats == 0
    stated = "min_similar_conversation_id" in record or "min_similar_uuid" in record
    return True if stated else None  # null in that column: there is no near-duplicate


def _check_labels(record: Record, options: Magpie) -> None:
    """Raise `BadRow` for the first label that falls short."""
    if options.min_quality is not None:
        quality = _label(record, "input_quality")
        if quality not in QUALITIES:
            raise BadRow(f"unknown input_quality: {quality!r}")
        if QUALITIES.index(quality) < QUALITIES.index(options.min_quality):
            raise BadRow(f"quality below min_quality: {quality}")
    if options.difficulty is not None and (label := _label(record, "difficulty")) not in options.difficulty:
        raise BadRow(f"difficulty not selected: {label}")
    if options.task_categories is not None:
        label = _label(record, "task_category")
        if label not in {name.casefold() for name in options.task_categories}:
            raise BadRow(f"task category not selected: {record['task_category']}")
    if options.min_reward is not None:
        reward = number(record, "instruct_reward")
        if reward is None:
            raise BadRow("instruct_reward not stated")
        if reward < options.min_reward:
            raise BadRow(f"reward below min_reward: {reward:g}")
    if options.safe_only and (label := _label(record, "llama_guard_2")) != SAFE:
        raise BadRow(f"not safe: {label}")
    if options.min_neighbor_distance is not None:
        _check_distance(record, options.min_neighbor_distance)


def _check_distance(record: Record, least: float) -> None:
    distance, representative = number(record, "min_neighbor_distance"), is_representative(record)
    if distance is None and representative is None:
        raise BadRow("min_neighbor_distance not stated")
    if not representative and (distance is None or distance <= least):
        raise BadRow("near-duplicate" if distance is None else f"near-duplicate: a neighbour at {distance:g}")


def to_sft(records: Iterable[Record], options: Magpie, start: int) -> Iterator[SftRow | Refused]:
    """Convert records to SFT rows, one for one."""

    def convert(record: Record, unit: int) -> SftRow:
        _check_labels(record, options)
        messages = read_conversation(record)
        turns = sum(message["role"] == "user" for message in messages)
        if options.turns is not None and turns != options.turns:
            raise BadRow(f"number of turns not selected: {turns}")
        if options.min_turns is not None and turns < options.min_turns:
            raise BadRow(f"fewer turns than min_turns: {turns}")
        return sft_row(
            messages,
            source=options.label,
            language=language_code(record.get("language")),
            license=row_license(options, record),
            meta=present(
                id=_either(record, "conversation_id", "uuid"),
                quality=record.get("input_quality"),
                difficulty=record.get("difficulty"),
                category=record.get("task_category"),
                reward=record.get("instruct_reward"),
                distance=record.get("min_neighbor_distance"),
                model=record.get("model"),
                row=unit,
            ),
            units=(unit,),
        )

    return convert_each(records, start, convert)


KIND = SourceKind(name="magpie", options=Magpie, to_sft=to_sft, check_own=check)
