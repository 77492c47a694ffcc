"""Where rows come from: sources as the build of data reads them, earlier entries, or nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.build import build
from posttrain.data.generate.inputs import input_problems, input_rows, input_total
from posttrain.data.generate.parts import Refusals
from posttrain.data.generate.requests import Asker
from posttrain.data.generate.rollouts.respond import respond as responding
from posttrain.data.generate.rollouts.translate import translate as translating
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.generate.run import run_rows
from posttrain.errors import UserError
from posttrain.recipe.schema import Data
from posttrain.recipe.schema_data import Duplicates, Validation
from posttrain.recipe.schema_generate import MagpieRollout, Rate, Respond, Rollout, Sampling, Translate
from tests.data.conversions import messages
from tests.data.generate import made
from tests.data.generate.scripted import Scripted


def respond(**keys: Any) -> Respond:
    return Respond(**{"rollout": "respond", "name": "answers", **keys})


def rate(**keys: Any) -> Rate:
    return Rate(**{"rollout": "rate", "name": "ratings", **keys})


def translate(**keys: Any) -> Translate:
    return Translate(**{"rollout": "translate", "name": "finnish", "to": "fi", "min_language_score": 0, **keys})


def generic(path: Path, **keys: Any) -> dict[str, Any]:
    return {"source": "generic", "path": str(path), **keys}


def write(path: Path, *records: Any) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def conversation(*texts: str, **keys: Any) -> dict[str, Any]:
    return {"messages": messages(*texts), **keys}


SAMPLES = {
    "oasst": "builtin:samples/oasst-messages.jsonl",
    "magpie": "builtin:samples/magpie.jsonl",
    "tulu3": "builtin:samples/tulu3.jsonl",
}


@pytest.mark.parametrize("source", SAMPLES)
def test_rows_of_a_source_are_those_that_the_data_build_makes(tmp_path: Path, source: str) -> None:
    """The same rows, in the order of the source, and the same refusals."""
    import pyarrow.parquet as pq

    entry = {"source": source, "path": SAMPLES[source]}
    summary = build(
        Data(sft=[entry], duplicates=Duplicates(exact=False), validation=Validation(fraction=0.0), num_proc=1),
        1,
        tmp_path / "data",
        report=False,
    )
    expected = {row["id"]: row for row in pq.read_table(tmp_path / "data/sft/train.parquet").to_pylist()}
    with Refusals(tmp_path) as refused:
        rows = list(input_rows(rate(source=entry), {}, refused=refused))
    assert summary.sets["sft"].train == len(expected) == len({row.id.partition("#")[0] for row in rows})
    for row in rows:
        built = expected[row.id.partition("#")[0]]
        assert (row.messages, row.license, row.language) == (built["messages"], built["license"], built["language"])
    assert [row.number for row in rows] == list(range(len(rows)))
    places = [row.meta["row"] for row in rows if "row" in row.meta]
    assert places == sorted(places)
    rejected = pq.read_table(tmp_path / "data/sft/rejected.parquet").to_pylist()
    assert sum(refused.reasons.values()) == sum(row["step"] in ("read", "convert") for row in rejected)


def test_what_makes_no_row_is_counted_and_written_aside(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        conversation("a", "b"),
        "{",
        "",
        conversation("only a question"),
        conversation("c", "d"),
        "[]",
    )
    rows, refused = _run(tmp_path, rate(source=generic(path)))
    assert [row["messages"][0]["content"] for row in rows] == ["a", "c"]
    assert [json.loads(row["meta"])["row"] for row in rows] == [0, 4]
    assert [(row["step"], row["reason"], row["detail"]) for row in refused] == [
        ("read", "not JSON", "line 2 of rows.jsonl"),
        ("convert", "no assistant turn", ""),
        ("read", "not an object", "line 6 of rows.jsonl"),
    ]
    done = json.loads((tmp_path / "out/done.json").read_text())
    assert done["refused"] == {"no assistant turn": 1, "not JSON": 1, "not an object": 1}


def test_rollouts_that_need_no_answers_take_prompts(tmp_path: Path) -> None:
    records = [conversation("a", "b"), conversation("c"), "{", conversation("d", "e", "f"), {"messages": []}]
    source = generic(write(tmp_path / "rows.jsonl", *records), language="fi")
    answered = [messages("a", "b")]
    unanswered = [*answered, messages("c"), messages("d", "e", "f")]
    lost = {"no messages": 1, "not JSON": 1}
    expected: list[tuple[Rollout, Any, dict[str, int]]] = [
        *((respond(source=source, respond=kind), unanswered, lost) for kind in ("last", "all", "keep")),
        (translate(source=source), unanswered, lost),
        *(
            (entry, answered, {**lost, "last turn is not the assistant's": 1, "no assistant turn": 1})
            for entry in (translate(source=source, turns="all"), rate(source=source))
        ),
    ]
    for entry, turns, reasons in expected:
        with Refusals(tmp_path) as refused:
            rows = list(input_rows(entry, {}, refused=refused))
        assert [row.messages for row in rows] == turns
        assert [row.number for row in rows] == list(range(len(rows)))
        assert {row.language for row in rows} == {"fi"}
        assert dict(sorted(refused.reasons.items())) == dict(sorted(reasons.items()))
        assert sum(reasons.values()) + len(rows) == len(records)


def test_an_answered_row_draws_the_same_answers_beside_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", conversation("a", "b"), conversation("c", "d"))
    entries: list[Rollout] = [respond(source=generic(path)), rate(source=generic(path))]
    one, other = ([(row.id, row.meta, row.messages) for row in input_rows(entry, {})] for entry in entries)
    assert one == other


def test_a_source_without_prompts_of_its_own_kind_is_read_as_for_training() -> None:
    oasst = {"source": "oasst", "path": SAMPLES["oasst"]}
    one, other = (list(input_rows(entry, {})) for entry in (respond(source=oasst), rate(source=oasst)))
    assert one == other


def test_prompts_are_translated_then_answered_then_learned(tmp_path: Path) -> None:
    """What is only translated is no row to learn; every prompt is accounted for on the way."""
    import pyarrow.parquet as pq

    out = tmp_path / "out"
    questions = [{"question": text} for text in ("Why?", "", "Who?", "Where?")]
    source = generic(write(tmp_path / "rows.jsonl", *questions), language="en", license="MIT")
    teacher = made.Scripted(lambda request: f"Suomeksi {made.last_user(request).split()[-1]}")
    first, second = translate(source=source), respond(rows_from="finnish", sampling=Sampling(max_tokens=8))
    for entry, rollout in ((first, translating(first, 1)), (second, responding(second, 1))):
        folder = out / entry.name
        folder.mkdir(parents=True)
        earlier = {} if entry is first else {"finnish": out / "finnish"}
        with Refusals(folder) as refused:
            rows = input_rows(entry, earlier, refused=refused)
            summary = asyncio.run(run_rows(rows, rollout, teacher, folder, concurrency=2, refused=refused))
        assert (summary.rows, summary.failed) == (3, 0)
        assert summary.refused == ({"empty content": 1} if entry is first else {})

    def learnt(name: str) -> list[dict[str, Any]]:
        entry = {"source": "generated", "path": str(out / name)}
        data = Data(sft=[entry], validation=Validation(fraction=0.0), num_proc=1)
        build(data, 1, tmp_path / "data" / name, report=False)
        rows: list[dict[str, Any]] = pq.read_table(tmp_path / "data" / name / "sft/train.parquet").to_pylist()
        return rows

    learnt_rows = learnt("answers")
    assert {tuple(message["role"] for message in row["messages"]) for row in learnt_rows} == {("user", "assistant")}
    assert {row["language"] for row in learnt_rows} == {"fi"}
    assert len(learnt_rows) == 3
    with pytest.raises(UserError) as error:
        learnt("finnish")
    (problem,) = error.value.problems
    assert problem.startswith(f"data.sft.0.path: {out / 'finnish'}: none of its 3 rows can be used: ")
    assert problem.endswith(": not answered yet, as a respond entry with rows_from does (3)")


def _run(tmp_path: Path, entry: Rollout) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    from posttrain.data.generate.parts import read_rows

    async def same(row: InputRow, asker: Asker) -> Outcome:
        return Outcome(messages=row.messages)

    out = tmp_path / "out"
    out.mkdir()
    with Refusals(out) as refused:
        rows = input_rows(entry, {}, refused=refused)
        asyncio.run(run_rows(rows, same, Scripted(), out, concurrency=2, refused=refused))
    return list(read_rows(out)), pq.read_table(out / "refused.parquet").to_pylist()


def test_rows_of_equal_content_have_ids_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[conversation(text, "b") for text in "aabaab"])
    ids = [row.id for row in input_rows(respond(source=generic(path)), {})]
    assert len(set(ids)) == 6
    first, other = ids[0], ids[2]
    assert ids == [first, f"{first}#2", other, f"{first}#3", f"{first}#4", f"{other}#2"]


def test_the_first_so_many_rows_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", conversation("x"), *[conversation(text, "b") for text in "abcd"], "{")
    entry = rate(source=generic(path), max_rows=2)
    with Refusals(tmp_path) as refused:
        assert [row.messages[0]["content"] for row in input_rows(entry, {}, refused=refused)] == ["a", "b"]
    assert refused.reasons == {"no assistant turn": 1}  # what lies behind the last row was not read
    assert input_total(entry, {}) == 2


def test_the_language_is_the_rows_or_the_entrys(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", conversation("a", "b", language="Finnish"), conversation("c", "d"))
    assert [row.language for row in input_rows(respond(source=generic(path)), {})] == ["fi", "und"]
    assert [row.language for row in input_rows(respond(source=generic(path), language="eng"), {})] == ["fi", "en"]


def test_a_sources_language_chooses_rows(tmp_path: Path) -> None:
    records = [conversation(text, "b", language=text) for text in ("fi", "en", "sv")]
    path = write(tmp_path / "rows.jsonl", *records, conversation("c", "d"))
    with Refusals(tmp_path) as refused:
        one = list(input_rows(respond(source=generic(path, language="fi")), {}, refused=refused))
        two = list(input_rows(respond(source=generic(path, language=["fi", "sv"])), {}, refused=refused))
    assert [row.language for row in one] == ["fi", "fi"]  # one that states none is taken for the only one asked for
    assert [row.language for row in two] == ["fi", "sv"]
    assert refused.reasons == {"language not selected": 3, "language not stated": 1}


def test_rows_written_from_nothing_are_numbered(tmp_path: Path) -> None:
    entry = MagpieRollout(rollout="magpie", name="made", rows=3, language="fi")
    assert list(input_rows(entry, {})) == [
        InputRow(number=number, id=f"made:{number}", messages=[], language="fi") for number in range(3)
    ]
    assert input_total(entry, {}) == 3


def test_rows_of_an_earlier_entry_with_their_failures(tmp_path: Path) -> None:
    async def answer(row: InputRow, asker: Asker) -> Outcome:
        if row.number == 1:
            return Outcome(failed="empty answer", meta={"n": 4})
        written = [*row.messages, {"role": "user", "content": "?"}, {"role": "assistant", "content": "new"}]
        return Outcome(messages=written, meta={"finish_reason": "stop"}, language="sv" if row.number else None)

    path = write(tmp_path / "rows.jsonl", *[conversation(text, "b", license="MIT") for text in "aac"])
    first = tmp_path / "first"
    asyncio.run(run_rows(input_rows(respond(source=generic(path)), {}), answer, Scripted(), first, concurrency=2))
    entry = respond(name="second", rows_from="first", language="fi")
    rows = list(input_rows(entry, {"first": first}))
    assert [row.id.partition("#")[2] for row in rows] == ["", "2", ""]
    assert [len(row.messages) for row in rows] == [4, 2, 4]
    assert [row.failed for row in rows] == [None, "empty answer", None]
    assert [row.language for row in rows] == ["fi", "fi", "sv"]
    assert {row.license for row in rows} == {"MIT"}
    assert rows[0].meta == {"row": 0, "generated": {"finish_reason": "stop"}}
    assert input_total(entry, {"first": first}) == 3


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (respond(source={"source": "generic", "path": "x", "fraction": 0.5}), "source.fraction: has no effect here"),
        (respond(source={"source": "generic", "path": "x", "max_rows": 5}), "source.max_rows: has no effect here"),
        (respond(source={"source": "generic", "path": "x", "repeat": 2}), "source.repeat: has no effect here"),
    ],
)
def test_what_cannot_be_is_said(entry: Rollout, problem: str) -> None:
    (found,) = input_problems(entry)
    assert found.startswith(f"generate.answers.{problem}")
    assert input_problems(respond(source={"source": "generic", "path": "x"}, max_rows=5)) == []


def test_a_source_without_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no rows"):
        next(input_rows(respond(source=generic(tmp_path / "rows.jsonl")), {}))


def test_totals_are_known_where_that_is_cheap(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = "\n".join(json.dumps(conversation(letter, "b")) for letter in "abc")
    (tmp_path / "no-newline.jsonl").write_text(text)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as stream:
        stream.write(text + "\n")
    pq.write_table(pa.table({"prompt": ["a"] * 4, "completion": ["b"] * 4}), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text("[]")
    totals = {name.name: input_total(respond(source=generic(name)), {}) for name in tmp_path.iterdir()}
    assert totals == {"no-newline.jsonl": 3, "rows.jsonl.gz": 3, "rows.parquet": 4, "rows.json": None}
    (tmp_path / "rows.json").unlink()
    assert input_total(respond(source=generic(tmp_path)), {}) == 10
    assert input_total(respond(source={"source": "oasst", "path": SAMPLES["oasst"]}), {}) is None
