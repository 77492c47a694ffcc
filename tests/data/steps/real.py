"""Conversations of one turn from the folder of real rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain.data.rows import SftRow
from tests.data.steps.made import sft


def records(file: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def real_rows(folder: Path) -> list[SftRow]:
    """Return the question-answer pairs of Dolly and OASST, in Finnish and English."""
    pairs = []
    for record in records(folder / "dolly-en-fi.jsonl"):
        pairs.append(("fi", record["instruction"], record["response"]))
        pairs.append(("en", record["orig_instruction"], record["orig_response"]))
    for language in ("fi", "en"):
        messages = {record["message_id"]: record for record in records(folder / f"oasst1-{language}-messages.jsonl")}
        for message in messages.values():
            if message["role"] == "assistant" and message["parent_id"] in messages:
                pairs.append((language, messages[message["parent_id"]]["text"], message["text"]))
    return [
        sft(answer, prompt, language=language)
        for language, prompt, answer in pairs
        if prompt.strip() and answer.strip()
    ]


def real_texts(folder: Path) -> list[tuple[str, str]]:
    """Return language and text of every Finnish and English text of more than 20 characters there is."""
    texts = [
        (language, line)
        for language in ("en", "fi")
        for line in (folder / f"tatoeba.en-fi.{language}").read_text(encoding="utf-8").split("\n")
    ]
    for record in records(folder / "dolly-en-fi.jsonl"):
        for key in ("instruction", "context", "response"):
            texts += [("fi", record[key]), ("en", record[f"orig_{key}"])]
    for record in records(folder / "oasst1-fi-messages.jsonl"):
        texts += [("fi", record["text"]), ("en", record["orig_text"])]
    for language in ("en", "fi"):
        for record in records(folder / f"mt-bench-{language}.jsonl"):
            texts += [(language, turn) for turn in record["turns"]]
    return [(language, text) for language, text in texts if len(text) > 20]
