"""Write the sample text and rows beside this file: `python data/make_samples.py`.

Everything follows from SEED, so another run gives the same bytes. Standard library only.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from generator.chats import Asker, conversation
from generator.faults import faulty
from generator.oasst import message_rows, tree_rows
from generator.prose import write_prose
from generator.releases import europarl_rows, passages, tulu3_rows, ultrafeedback_rows
from generator.releases import magpie_rows as labelled_magpie_rows
from generator.world import EN, FI

SEED = 2026
HERE = Path(__file__).resolve().parent
TEXT_BYTES = 200_000
HANDWRITTEN = HERE / "generator" / "handwritten.jsonl"
Row = dict[str, Any]

_LANGUAGE_NAMES = {EN: "english", FI: "finnish"}
_MAGPIE_CATEGORIES = {
    "program": "Coding & Debugging", "add": "Math", "together": "Math", "count": "Math", "story": "Creative writing",
    "translate": "Editing", "translate_word": "Editing", "list": "Brainstorming", "bigger": "Reasoning",
    "yes_or_no": "Reasoning",
}  # fmt: skip
_SYSTEM = {
    EN: ("You are a friendly assistant in the village of Lampila.", "You answer politely in English.",
    "You are a helpful assistant."),
    FI: ("Olet ystävällinen avustaja Lampilan kylässä.", "Vastaat kohteliaasti suomeksi.", "Olet avulias avustaja."),
}  # fmt: skip


def tulu_rows(r: Random, asker: Asker, handwritten: list[Row], rows: int) -> list[Row]:
    """Tulu 3: `id`, `messages`, `source`; the handwritten conversations come among the drawn ones."""
    found = [(row["messages"], "handwritten") for row in handwritten]
    for i in range(rows - len(handwritten)):
        language = (EN, FI)[i % 2]
        turns = r.choice((1, 1, 1, 2, 2, 3))
        messages = conversation(r, asker.ask(r, language), turns)
        kind = "multi-turn" if turns > 1 else "single-turn"
        if r.random() < 0.12:
            messages.insert(0, {"role": "system", "content": r.choice(_SYSTEM[language])})
            kind = "system"
        found.append((messages, kind))
    r.shuffle(found)
    return [
        {"id": f"lampila_{i}", "messages": messages, "source": f"lampila/{kind}"}
        for i, (messages, kind) in enumerate(found)
    ]


def magpie_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    """The columns of a multi-turn Magpie release; the scores are drawn, since no reward model was asked."""
    names = {"user": "human", "assistant": "gpt"}
    found = []
    for i in range(rows):
        language = (EN, FI)[i % 2]
        x = asker.ask(r, language)
        messages = conversation(r, x, r.choice((1, 2, 2)))
        found.append(
            {
                "conversation_id": f"{r.getrandbits(36):09x}",
                "instruction": messages[0]["content"],
                "response": messages[1]["content"],
                "instruction_2": messages[2]["content"] if len(messages) > 2 else None,
                "response_2": messages[3]["content"] if len(messages) > 2 else None,
                "conversations": [{"from": names[m["role"]], "value": m["content"]} for m in messages],
                "difficulty": r.choice(("very easy", "easy")),
                "input_quality": r.choice(("good", "excellent")),
                "task_category": _MAGPIE_CATEGORIES.get(x.task, "Information seeking"),
                "instruct_reward": round(r.uniform(-2.0, 3.0), 3),
                "min_neighbor_distance": round(r.uniform(0.0, 0.5), 3),
                "repeat_count": 0,
                "min_similar_conversation_id": None,
                "llama_guard_2": "safe",
                "language": language.upper(),
            }
        )
    return found


def instruction_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    """`instruction`, `input`, `output`: what follows the colon of a translation is its input."""
    found = []
    for i in range(rows):
        x = asker.ask(r, (EN, FI)[i % 2])
        instruction, colon, given = x.prompt.partition(": ")
        if x.task == "translate":
            row = {"instruction": instruction + colon.strip(), "input": given, "output": x.answers[0]}
        else:
            row = {"instruction": x.prompt, "input": "", "output": x.answers[0]}
        found.append({**row, "language": x.language})
    return found


def completion_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    found = []
    for i in range(rows):
        x = asker.ask(r, (EN, FI)[i % 2])
        found.append({"prompt": x.prompt, "completion": x.answers[0], "language": x.language})
    return found


def preference_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    found = []
    for i in range(rows):
        x = asker.ask(r, (EN, FI)[i % 2])
        found.append(
            {"prompt": x.prompt, "chosen": x.answers[0], "rejected": faulty(r, x).text, "language": x.language}
        )
    return found


def _judgements(r: Random, preference: int, first: str, second: str) -> list[Row]:
    """One to three annotators who agree on the better response but not always on the margin."""
    sign = (preference > 0) - (preference < 0)
    reasoning = {
        -1: f"@Response 1 answers the question, but @Response 2 {second}.",
        1: f"@Response 2 answers the question, but @Response 1 {first}.",
        0: "Both are right and clear.",
    }[sign]
    good = "Right and complete."
    return [
        {
            "score": sign * min(3, max(1, abs(preference) + r.choice((-1, 0, 0, 1)) * (n > 0))),
            "reasoning": reasoning,
            "feedback1": f"It {first}." if sign > 0 else good,
            "feedback2": f"It {second}." if sign < 0 else good,
        }
        for n in range(r.choice((1, 1, 1, 1, 2, 3)))
    ]


def helpsteer_rows(r: Random, asker: Asker, rows: int) -> list[Row]:
    """HelpSteer3 preferences: the better response is as often the second as the first; one row in twenty is a tie."""
    domains = ["general"] * 44 + ["stem"] * 24 + ["code"] * 20 + ["multilingual"] * 12
    found: list[Row] = []
    for i in range(rows):
        tie = i % 20 == 0
        domain = "general" if tie else domains[i % len(domains)]
        if tie:
            x = asker.ask_until(r, EN, lambda x: len(x.answers) > 1)
            preference, responses, reasons = 0, x.answers[:2], ("", "")
        else:
            x = asker.ask_domain(r, domain)
            fault = faulty(r, x)
            better_first = r.random() < 0.5
            preference = -fault.severity if better_first else fault.severity
            responses = (x.answers[0], fault.text) if better_first else (fault.text, x.answers[0])
            reasons = ("", fault.reason) if better_first else (fault.reason, "")
        context = [{"role": "user", "content": x.prompt}]
        if domain != "code" and r.random() < 0.2:
            earlier = asker.ask(r, x.language)
            context = [*conversation(r, earlier, 1), *context]
        found.append(
            {
                "domain": domain,
                "language": x.code if domain == "code" else _LANGUAGE_NAMES[x.language],
                "context": context,
                "response1": responses[0],
                "response2": responses[1],
                "overall_preference": preference,
                "individual_preference": _judgements(r, preference, *reasons),
            }
        )
    # Responses that the real set also has and that no training can use: null, empty, equal.
    for i, response in ((7, None), (57, ""), (107, None), (157, "")):
        found[i]["response1" if found[i]["overall_preference"] > 0 else "response2"] = response
    found[207]["response2"] = found[207]["response1"]
    r.shuffle(found)
    return found


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def make(out: Path) -> None:
    """Write `text/` and `samples/` under `out`."""
    (out / "text").mkdir(parents=True, exist_ok=True)
    (out / "samples").mkdir(parents=True, exist_ok=True)
    for language in (EN, FI):
        prose = write_prose(Random(f"{SEED} text {language}"), language, TEXT_BYTES)
        (out / "text" / f"{language}.txt").write_text(prose, encoding="utf-8", newline="\n")
    handwritten = [json.loads(line) for line in HANDWRITTEN.read_text(encoding="utf-8").splitlines()]
    r = Random(f"{SEED} rows")
    asker = Asker(row["messages"][-2]["content"] for row in handwritten)
    files = {
        "helpsteer3": helpsteer_rows(r, asker, 450),
        "oasst-messages": message_rows(r, asker, 160),
        "oasst-trees": tree_rows(r, asker, 30),
        "messages": tulu_rows(r, asker, handwritten, 460),
        "sharegpt": magpie_rows(r, asker, 150),
        "instructions": instruction_rows(r, asker, 540),
        "prompt-completion": completion_rows(r, asker, 540),
        "preferences": preference_rows(r, asker, 320),
    }
    files |= _releases(asker)
    for name, rows in files.items():
        _write_rows(out / "samples" / f"{name}.jsonl", rows)
    aligned = passages(Random(f"{SEED} aligned lines"), 40)
    for place, language in enumerate((EN, FI)):
        lines = "".join(f"{passage[place]}\n" for passage in aligned)
        (out / "samples" / f"europarl.en-fi.{language}").write_text(lines, encoding="utf-8", newline="\n")


def _releases(asker: Asker) -> dict[str, list[Row]]:
    """The schemas of single releases, each with its own random numbers, so that one can change without the others."""
    return {
        "tulu3": tulu3_rows(Random(f"{SEED} tulu3"), asker, 60),
        "magpie": labelled_magpie_rows(Random(f"{SEED} magpie"), asker, 60),
        "europarl": europarl_rows(passages(Random(f"{SEED} europarl"), 60)),
        "ultrafeedback": ultrafeedback_rows(Random(f"{SEED} ultrafeedback"), asker, 60),
        "avoin-avustaja": message_rows(Random(f"{SEED} avoin-avustaja"), asker, 24, every=2, languages=(FI,)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to, this one if not given")
    make(parser.parse_args().out)
