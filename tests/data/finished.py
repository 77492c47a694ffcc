"""Writes a finished data folder by hand, with invented rows, for tests of what reads one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from posttrain.data.rows import content_id, preference_row, sft_row
from posttrain.data.tables import TableWriter, refused_record, row_table, table_of

SCRIPT = "<script>document.title = 'run'</script>"
_TALK = {
    "en": ("How do I keep bread fresh?", "Wrap it in cloth, and freeze what you will not eat in two days."),
    "fi": ("Miten leipä pysyy tuoreena?", "Kääri se liinaan ja pakasta se, mitä et syö kahdessa päivässä."),
}


def messages(number: int, language: str, turns: int = 1, words: int = 1) -> list[dict[str, str]]:
    """Return a conversation that depends on its number; the answers repeat `words` times."""
    question, answer = _TALK[language]
    made = []
    for place in range(turns):
        made.append({"role": "user", "content": f"{question} ({number}.{place})"})
        made.append({"role": "assistant", "content": " ".join([answer] * words)})
    return made


def sft(number: int, source: str, language: str = "en", license: str | None = "Apache-2.0", **more: Any) -> Any:
    """Return an SFT row; `more` goes to `messages`, and `meta` into the row."""
    meta = more.pop("meta", {})
    talk = messages(number, language, **more)
    return sft_row(talk, source=source, language=language, license=license, meta=meta, units=(number,))


def pair(number: int, source: str, margin: float | None, chosen: str, rejected: str) -> Any:
    """Return a preference row with those answers."""
    prompt = messages(number, "en")[:1]
    return preference_row(
        prompt,
        chosen,
        rejected,
        margin=margin,
        source=source,
        language="en",
        license="CC-BY-4.0",
        meta={},
        units=(number,),
    )


def account(entry: str, name: str, unit: str = "row", **counts: Any) -> dict[str, Any]:
    """Return an entry's part of `summary.json`, with nothing rejected unless `counts` says so."""
    return {
        "entry": entry,
        "name": name,
        "source": "generic",
        "provenance": {"path": f"example/{name}", "revision": "0123456789abcdef0123", "files": []},
        "unit": unit,
        "sampled_out": 0,
        "train_repeats": 0,
        "validation": 0,
        "rejected": {},
        **counts,
    }


def write_set(
    folder: Path,
    kind: str,
    train: list[Any],
    validation: list[Any],
    rejected: list[dict[str, Any]],
    duplicates: list[dict[str, Any]],
) -> None:
    """Write the parquet files of one set."""
    for name, rows in (("train", train), ("validation", validation)):
        with TableWriter(folder / kind / f"{name}.parquet", kind) as writer:
            writer.write(row_table(kind, rows))
    for name, records in (("rejected", rejected), ("duplicates", duplicates)):
        with TableWriter(folder / kind / f"{name}.parquet", name) as writer:
            writer.write(table_of(name, records))


def finish(
    folder: Path,
    sets: dict[str, list[dict[str, Any]]],
    settings: dict[str, Any],
    written: dict[str, tuple[list[Any], list[Any]]],
) -> None:
    """Write `summary.json`: the accounts, with languages and licences counted from the rows written."""
    made: dict[str, Any] = {}
    for kind, accounts in sets.items():
        train, validation = written[kind]
        for each in accounts:
            rows = [row for row in (*train, *validation) if row.source == each["name"]]
            each["licenses"] = dict(sorted(Counter(row.license or "unknown" for row in rows).items()))
            each["languages"] = dict(sorted(Counter(row.language for row in rows).items()))
            each.setdefault("train", sum(row.source == each["name"] for row in train))
            each.setdefault("validation", sum(row.source == each["name"] for row in validation))
        refused = sum(sum(reasons.values()) for each in accounts for reasons in each["rejected"].values())
        made[kind] = {"train": len(train), "validation": len(validation), "rejected": refused, "sources": accounts}
    text = json.dumps({"seed": 42, "sets": made, "settings": settings}, indent=2, ensure_ascii=False, sort_keys=True)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")


SETTINGS: dict[str, Any] = {
    "sft": [
        {"source": "generic", "name": "bread", "path": "example/bread", "language": "en", "skip": []},
        {"source": "oasst", "name": "leipä", "path": "example/leipä", "language": ["fi", "en"], "skip": ["repetition"]},
    ],
    "preference": [{"source": "helpsteer3", "name": "helpsteer3", "path": "example/helpsteer3", "ties": "drop"}],
    "filters": {
        "markup": None,
        "truncation": {"min_chars": 200},
        "length": {"min_prompt": 3, "max_prompt": None, "max_response": 8000, "min_response": None, "max_tokens": 4096},
        "language": {"crop": 200, "min_letters": 20, "match_response": True},
        "repetition": {"ngram": 8, "max_share": 0.3, "min_words": 50},
        "refusal": {"phrases": ["I would rather not"]},
        "vendor": None,
    },
    "pii": {"kinds": ["email", "phone"], "code": False},
    "duplicates": {
        "exact": True,
        "near": {"threshold": 0.7, "permutations": 128, "ngram": 3, "sets": ["sft"]},
    },
    "decontaminate": {
        "against": [
            {"path": "example/mt-bench", "name": "mt bench", "revision": None},
            {"path": "example/ifeval", "name": None, "revision": "abc"},
        ],
        "ngram": {"default": 8, "fi": 6},
        "threshold": 0.5,
    },
    "validation": {"fraction": 0.05, "max_rows": 2000},
    "num_proc": None,
}


def write_folder(folder: Path) -> Path:
    """Write both sets, with a loss of every kind; two sources, `bread` and `leipä`, and one of pairs."""
    bread = [sft(number, "bread", words=1 + number % 7, turns=1 + number % 3) for number in range(30)]
    bread[3] = sft(3, "bread", meta={"pii": {"email": 2, "phone": 1}})
    hostile = sft_row(
        [{"role": "user", "content": f"{SCRIPT}\0 & more"}, {"role": "assistant", "content": "ä" * 30_000}],
        source="leipä",
        language="fi",
        license="CC-BY-NC-4.0",
        meta={},
        units=(0,),
    )
    finnish = [hostile, *(sft(number, "leipä", "fi", "CC-BY-NC-4.0") for number in range(1, 9))]
    finnish += [sft(number, "leipä", "en", None) for number in range(9, 12)]
    rejected = [
        refused_record("bread", "read", "not JSON: line 7", '{"messages": ['),
        refused_record("leipä", "convert", "no assistant turn", {"text": SCRIPT}),
        refused_record("bread", "length", "response too long: 9,000 characters", vars(sft(90, "bread", words=50))),
        refused_record("bread", "decontaminate", "contaminated: mt bench 81: Compose a blog", vars(sft(91, "bread"))),
        refused_record("leipä", "decontaminate", "contaminated: example/ifeval 9: Write", vars(sft(92, "leipä", "fi"))),
        refused_record("bread", "dedup", "duplicate: of a row of bread", vars(sft(1, "bread"))),
        refused_record("leipä", "near_duplicates", "near-duplicate: of a row of bread", vars(sft(93, "leipä"))),
    ]
    duplicates = [
        _duplicate("bread", "bread", "exact", 1.0, "How do I keep bread fresh?", "how do I keep  bread fresh?"),
        _duplicate("leipä", "bread", "near", 0.82, f"How to keep bread fresh? {SCRIPT}", "How do I keep bread fresh?"),
        _duplicate("leipä", "bread", "near", 0.91, None, None),
    ]
    pairs = [
        pair(number, "helpsteer3", float(1 + number % 3), "yes " * (4 + number % 5), "no " * (1 + number % 9))
        for number in range(40)
    ]
    tie = refused_record("helpsteer3", "convert", "tie", {"overall_preference": 0})
    write_set(folder, "sft", [*bread, *finnish, bread[0]], [sft(200, "bread")], rejected, duplicates)
    write_set(folder, "preference", pairs, [], [tie], [])
    accounts = [
        account(
            "data.sft.0",
            "bread",
            read=35,
            units=34,
            used=34,
            rows=34,
            train=30,
            train_repeats=1,
            validation=1,
            rejected={
                "read": {"not JSON": 1},
                "length": {"response too long": 1},
                "decontaminate": {"contaminated": 1},
                "dedup": {"duplicate": 1},
            },
        ),
        account(
            "data.sft.1",
            "leipä",
            "message",
            read=5,
            units=30,
            used=29,
            rows=16,
            train=12,
            sampled_out=1,
            rejected={
                "convert": {"no assistant turn": 1},
                "decontaminate": {"contaminated": 1},
                "near_duplicates": {"near-duplicate": 2},
            },
        ),
    ]
    of_pairs = [
        account(
            "data.preference.0",
            "helpsteer3",
            read=41,
            units=41,
            used=40,
            rows=40,
            train=40,
            rejected={"convert": {"tie": 1}},
        )
    ]
    written = {"sft": ([*bread, *finnish, bread[0]], [sft(200, "bread")]), "preference": (pairs, [])}
    finish(folder, {"sft": accounts, "preference": of_pairs}, SETTINGS, written)
    return folder


def _duplicate(
    source: str, kept: str, step: str, similarity: float, removed_text: str | None, kept_text: str | None
) -> dict[str, Any]:
    return {
        "source": source,
        "kept_source": kept,
        "step": step,
        "removed_id": content_id([source, similarity]),
        "kept_id": content_id([kept]),
        "similarity": similarity,
        "removed_text": removed_text,
        "kept_text": kept_text,
    }
