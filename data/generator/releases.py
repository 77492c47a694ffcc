"""Rows in the schemas of published releases, with a few of each trap that a converter has to see."""

from __future__ import annotations

from random import Random
from typing import Any

from .chats import Asker, conversation
from .faults import faulty
from .questions import Exchange, Task, belonging, describe, eat, legs, story, work
from .tasks import ask, invite, program
from .world import EN, FI

Row = dict[str, Any]

# Subsets of Tulu 3 as its column `source` calls them, by what the questions are about.
_TULU_GENERAL = (
    "ai2-adapt-dev/tulu_v3.9_wildchat_100k",
    "ai2-adapt-dev/oasst1_converted",
    "ai2-adapt-dev/tulu_v3.9_aya_100k",
)
_TULU_MATHS = ("allenai/tulu-3-sft-personas-math-grade", "ai2-adapt-dev/tulu_v3.9_open_math_2_gsm8k_50k")
_TULU_CODE = ("ai2-adapt-dev/personahub_code_v2_34999", "ai2-adapt-dev/evol_codealpaca_heval_decontaminated")
_TULU_NOT_COMMERCIAL = (
    "ai2-adapt-dev/flan_v2_converted",
    "ai2-adapt-dev/tulu_v3.9_sciriff_10k",
    "ai2-adapt-dev/no_robots_converted",
    "ai2-adapt-dev/numinamath_tir_math_decontaminated",
)
_MATHS = ("add", "together", "count")
_CATEGORIES = {
    "program": "Coding & Debugging", "add": "Math", "together": "Math", "count": "Math", "story": "Creative writing",
    "list": "Brainstorming", "bigger": "Reasoning", "yes_or_no": "Reasoning", "invite": "Advice seeking",
}  # fmt: skip
_PASSAGES: dict[Task, int] = {describe: 6, eat: 2, belonging: 2, legs: 2, work: 2, story: 4, invite: 2}


def _tulu_subset(r: Random, x: Exchange) -> str:
    if x.task in _MATHS:
        return r.choice(_TULU_MATHS)
    return r.choice(_TULU_CODE if x.domain == "code" else _TULU_GENERAL)


def tulu3_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    """Every sixth row is of a non-commercial subset; one in three is Finnish; one ends with a question."""
    found = []
    for i in range(rows):
        x = asker.ask(r, FI if i % 3 == 2 else EN, {program: 1} if i % 10 == 4 else None)
        subset = r.choice(_TULU_NOT_COMMERCIAL) if i % 6 == 5 else _tulu_subset(r, x)
        messages = conversation(r, x, r.choice((1, 1, 1, 2, 3)))
        if i == rows // 2:
            messages.pop()
        found.append({"id": f"{subset.rpartition('/')[2]}_{i}", "messages": messages, "source": subset})
    return found


def _spoil_magpie(r: Random, row: Row, trap: str, other: Row) -> None:
    if trap == "quality":
        row["input_quality"] = r.choice(("very poor", "poor"))
        row["instruct_reward"] = round(r.uniform(-9.0, -4.0), 3)
    elif trap == "unsafe":
        row["llama_guard_2"] = r.choice(("S1", "S3", "S9"))
    elif trap == "near_duplicate":  # of an earlier row, which represents both
        distance = round(r.uniform(0.0, 0.04), 4)
        for one in (row, other):
            one |= {"min_neighbor_distance": distance, "repeat_count": 1, "min_similar_uuid": other["uuid"]}
        row["instruction"] = row["conversations"][0]["value"] = other["instruction"].rstrip(".?!") + ", please."
        row["response"] = row["conversations"][1]["value"] = other["response"]
        row |= dict.fromkeys(("instruction_2", "response_2", "instruction_3", "response_3"))
        del row["conversations"][2:]
    elif trap == "unlabelled":
        row["input_quality"] = row["instruct_reward"] = None
    else:
        raise ValueError(f"unknown trap {trap!r}")


def magpie_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    """One to three turns; every fifth row has a trap: low quality, unsafe, a near-duplicate, labels that are absent."""
    names = {"user": "human", "assistant": "gpt"}
    found: list[Row] = []
    for i in range(rows):
        x = asker.ask(r, (EN, FI)[i % 2])
        messages = conversation(r, x, i % 3 + 1)
        row: Row = {"uuid": f"{r.getrandbits(64):016x}", "model": "lampila-model"}
        for place in range(3):
            suffix = f"_{place + 1}" if place else ""
            asked = messages[2 * place : 2 * place + 2]
            row[f"instruction{suffix}"], row[f"response{suffix}"] = (
                (m["content"] for m in asked) if asked else (None,) * 2
            )
        row |= {
            "conversations": [{"from": names[m["role"]], "value": m["content"]} for m in messages],
            "difficulty": r.choice(("very easy", "easy", "medium")),
            "input_quality": r.choice(("average", "good", "good", "good", "excellent")),
            "task_category": _CATEGORIES.get(x.task, "Information seeking"),
            "instruct_reward": round(r.uniform(-2.0, 3.0), 3),
            "min_neighbor_distance": round(r.uniform(0.06, 0.6), 4),
            "repeat_count": 0,
            "min_similar_uuid": None,
            "llama_guard_2": "safe",
            "language": x.language.upper(),
        }
        if i % 5 == 4:
            trap = ("quality", "unsafe", "near_duplicate", "unlabelled")[i // 5 % 4]
            _spoil_magpie(r, row, trap, found[i - 4])
        found.append(row)
    return found


def passages(r: Random, count: int) -> list[tuple[str, str]]:
    """Draw aligned passages, English and Finnish, no English one twice; every sixth is not fit to learn from."""
    found: dict[str, str] = {}
    while len(found) < count:
        x = ask(r, EN, _PASSAGES)
        english, finnish = x.answers[0], x.other
        trap = len(found) // 6 % 5 if len(found) % 6 == 5 else None
        if trap == 0:  # the line belongs to another one
            finnish = "Kyllä."
        elif trap == 1:
            finnish = ""
        elif trap == 2:  # left untranslated
            finnish = english
        elif trap == 3:
            english, finnish = finnish, english
        elif trap == 4:
            english, finnish = f"Thank you, {len(found)}.", f"Kiitos, {len(found)}."
        found.setdefault(english, finnish)
    return list(found.items())


def europarl_rows(pairs: list[tuple[str, str]]) -> list[Row]:
    """The hub's form of aligned passages."""
    return [{"translation": {"en": english, "fi": finnish}} for english, finnish in pairs]


def ultrafeedback_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    """Every tenth row is a tie, a pair the wrong way round, a pair of equal answers, or one with an empty answer."""
    found = []
    for i in range(rows):
        x = asker.ask(r, EN)
        fault = faulty(r, x)
        better = round(r.uniform(7.0, 9.5) * 2) / 2
        worse = max(1.0, better - fault.severity - r.choice((0.0, 0.5, 1.0)))
        right, wrong = x.answers[0], fault.text
        if i % 10 == 9:
            trap = i // 10 % 4
            if trap == 0:
                worse = better
            elif trap == 1:
                better, worse = worse, better
            elif trap == 2:
                wrong = right
            else:
                wrong = ""
        asked = {"role": "user", "content": x.prompt}
        chosen = [asked, {"role": "assistant", "content": right}]
        found.append(
            {
                "prompt": x.prompt,
                "prompt_id": f"{r.getrandbits(128):032x}",
                "chosen": chosen,
                "rejected": [asked, {"role": "assistant", "content": wrong}],
                "messages": chosen,
                "score_chosen": better,
                "score_rejected": worse,
            }
        )
    return found
