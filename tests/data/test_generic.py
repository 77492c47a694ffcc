from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from posttrain.data.rows import Conversation, PreferenceRow, Refused, SftRow, content_id
from posttrain.data.sources import SOURCES
from posttrain.data.sources.generic import Generic, prepare, to_preference, to_prompts, to_sft
from posttrain.errors import UserError
from tests.data.conversions import messages

Load = Callable[[str], list[dict[str, Any]]]
OPTIONS = Generic(source="generic", path="some.jsonl", name="fixture", license="CC0-1.0")


def convert(converter: Any, records: list[dict[str, Any]], start: int = 0) -> list[Any]:
    return list(converter(records, prepare(OPTIONS, records[:20]), start))


def sft(records: list[dict[str, Any]]) -> list[SftRow]:
    rows = convert(to_sft, records)
    assert not [row for row in rows if isinstance(row, Refused)]
    return [row for row in rows if isinstance(row, SftRow)]


def turns(row: SftRow) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row.messages]


def test_messages(load: Load) -> None:
    english, finnish, silent_system = sft(load("messages.jsonl"))
    assert turns(english) == [("user", "Which bird sings at night?"), ("assistant", "The thrush nightingale.")]
    assert [role for role, _ in turns(finnish)] == ["system", "user", "assistant", "user", "assistant"]
    assert turns(silent_system)[0] == ("user", "Name a fish.")
    assert (english.language, finnish.language) == ("und", "fi")
    assert (english.source, english.license) == ("fixture", "CC0-1.0")
    assert json.loads(english.meta) == {"id": "m1", "row": 0, "source": "birds"}
    assert english.meta == '{"id":"m1","row":0,"source":"birds"}'


def test_sharegpt(load: Load) -> None:
    several, system = sft(load("sharegpt.jsonl"))
    assert [role for role, _ in turns(several)] == ["user", "assistant", "user", "assistant"]
    assert turns(system)[0] == ("system", "Vastaa suomeksi.")
    assert (several.language, system.language) == ("en", "fi")
    assert json.loads(several.meta)["instruct_reward"] == -1.25


def test_prompt_and_completion_as_text_or_messages(load: Load) -> None:
    text, messages = sft(load("prompt_completion.jsonl"))
    assert turns(text) == [("user", "Translate to Finnish: a boat"), ("assistant", "vene")]
    assert [role for role, _ in turns(messages)] == ["system", "user", "assistant"]


@pytest.mark.parametrize("name", ["instructions.jsonl", "dolly.jsonl"])
def test_instructions_with_and_without_input(load: Load, name: str) -> None:
    records = load(name)
    with_input, without = sft(records)
    given = records[0].get("input") or records[0]["context"]
    assert turns(with_input)[0] == ("user", f"{records[0]['instruction']}\n\n{given}")
    assert turns(without)[0] == ("user", records[1]["instruction"])


def test_shapes_of_one_conversation_give_one_id() -> None:
    shapes: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"prompt": "Q", "completion": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q", "response": "A"},
    ]
    ids = {sft([record])[0].id for record in shapes}
    assert ids == {content_id(shapes[0]["messages"])}
    assert len(ids.pop()) == 32


def test_unfit_rows_are_refused_with_their_reason(load: Load) -> None:
    records = load("refused.jsonl")
    *refused, kept = convert(to_sft, records)
    assert [row.kind for row in refused if isinstance(row, Refused)] == [
        "no assistant turn",
        "roles out of order",
        "roles out of order",
        "last turn is not the assistant's",
        "empty content",
        "unknown role",
        "content is not text",
        "roles out of order",
        "no messages",
        "missing column",
        "messages are not a list of objects",
        "missing column",
        "content is not valid Unicode",
    ]
    assert [row.unit for row in refused if isinstance(row, Refused)] == list(range(13))
    assert [row.source_row for row in refused if isinstance(row, Refused)] == records[:13]
    assert isinstance(kept, SftRow)
    assert kept.units == (13,)


def test_preferences(load: Load) -> None:
    rows = [row for row in convert(to_preference, load("preferences.jsonl")) if isinstance(row, PreferenceRow)]
    text, repeated, system, implicit, messages = rows
    assert text.prompt == [{"role": "user", "content": "Why is the lake blue?"}]
    assert text.chosen == [{"role": "assistant", "content": "It mirrors the sky."}]
    assert text.rejected == [{"role": "assistant", "content": "No idea."}]
    assert (text.margin, repeated.margin, implicit.margin) == (None, 3.5, 2.0)
    assert repeated.prompt == [{"role": "user", "content": "Why is the lake blue? Be brief."}]
    assert [message["role"] for message in system.prompt] == ["system", "user", "assistant", "user"]
    assert implicit.prompt == [{"role": "user", "content": "What flies?"}]
    assert messages.prompt == [{"role": "user", "content": "What swims?"}]


def test_unfit_pairs_are_refused_with_their_reason(load: Load) -> None:
    rows = convert(to_preference, load("preferences.jsonl"))
    assert [row.kind for row in rows if isinstance(row, Refused)] == [
        "chosen equals rejected",
        "chosen and rejected differ before the last turn",
        "prompt is not what chosen and rejected answer",
        "tie",
        "chosen scores below rejected",
        "missing column",
        "no prompt",
    ]


def test_a_prompt_of_the_chosen_column_alone_does_not_change_the_id() -> None:
    user, better, worse = ({"role": "user", "content": "Q"}, *({"role": "assistant", "content": c} for c in "AB"))
    forms: list[dict[str, Any]] = [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [user], "chosen": [better], "rejected": [worse]},
        {"prompt": "Q", "chosen": [user, better], "rejected": [user, worse]},
        {"chosen": [user, better], "rejected": [user, worse]},
    ]
    assert len({row.id for form in forms for row in convert(to_preference, [form])}) == 1


def test_no_known_shape() -> None:
    with pytest.raises(UserError) as error:
        prepare(OPTIONS, [{"body": "a", "url": "b"}, {"body": "c", "date": "d"}])
    (problem,) = error.value.problems
    assert problem.startswith("some.jsonl: has none of the known shapes; its columns are body, url, date; known are ")


def test_a_named_shape_wins_over_the_first_that_fits() -> None:
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "long"}]
    record: dict[str, Any] = {"messages": messages, "prompt": "Q", "completion": "short"}
    options = replace(OPTIONS, shape="prompt+completion")
    (row,) = to_sft([record], prepare(options, [record]), 0)
    assert isinstance(row, SftRow)
    assert row.messages[-1]["content"] == "short"
    with pytest.raises(UserError, match=r"some.jsonl: has not the shape instruction\+output; its columns are messages"):
        prepare(replace(OPTIONS, shape="instruction+output"), [record])


def test_a_dataset_with_conversations_and_pairs_serves_both_sets() -> None:
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    record: dict[str, Any] = {"messages": messages, "prompt": "Q", "chosen": "A", "rejected": "B"}
    options = prepare(OPTIONS, [record])
    assert [type(row) for row in (*to_sft([record], options, 0), *to_preference([record], options, 0))] == [
        SftRow,
        PreferenceRow,
    ]


@pytest.mark.parametrize(
    ("converter", "record"),
    [(to_sft, {"prompt": "Q", "chosen": "A", "rejected": "B"}), (to_preference, {"prompt": "Q", "completion": "A"})],
)
def test_a_shape_of_the_other_set(converter: Any, record: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"its columns are {', '.join(record)}; .* move the entry: "):
        convert(converter, [record])


PROMPTS: list[dict[str, Any]] = [
    {"prompt": "Q"},
    {"instruction": "Q", "input": " ", "context": None},
    {"question": "Q"},
    {"text": "Q"},
    {"messages": messages("Q")},
    {"conversations": [{"from": "human", "value": "Q"}]},
    {"prompt": messages("Q")},
]


@pytest.mark.parametrize("record", PROMPTS, ids=lambda record: "+".join(record))
def test_prompts_without_answers_are_rows_to_answer_and_none_to_learn(record: dict[str, Any]) -> None:
    records = [{**record, "topic": "fish", "language": "fi"}]
    (row,) = convert(to_prompts, records, 7)
    assert type(row) is Conversation
    assert row.messages == messages("Q")
    assert row.id == content_id(row.messages)
    assert (row.source, row.language, row.license, row.units) == ("fixture", "fi", "CC0-1.0", (7,))
    assert json.loads(row.meta) == {"row": 7, "topic": "fish"}
    if "messages" in record or "conversations" in record:
        (refused,) = convert(to_sft, records)
        assert refused.reason == "no assistant turn"
    else:
        with pytest.raises(UserError, match=r"which holds no conversations to learn; its columns .*rollout: respond"):
            convert(to_sft, records)


def test_what_has_answers_gives_the_same_rows_as_for_training(load: Load) -> None:
    for name in ("messages", "sharegpt", "prompt_completion", "instructions", "dolly"):
        records = load(f"{name}.jsonl")
        assert [vars(row) for row in convert(to_prompts, records)] == [vars(row) for row in sft(records)]


@pytest.mark.parametrize("answer", [None, "", " \n", []])
@pytest.mark.parametrize("columns", [("prompt", "completion"), ("instruction", "output"), ("instruction", "response")])
def test_a_record_that_lacks_its_answer_is_its_prompt(columns: tuple[str, str], answer: Any) -> None:
    asked, answered = columns
    records = [{asked: "Q", answered: "A"}, {asked: "R", answered: answer}, {asked: "S"}, {answered: "B"}]
    *rows, refused = convert(to_prompts, records)
    assert [row.messages for row in rows] == [messages("Q", "A"), messages("R"), messages("S")]
    assert refused.reason == f"missing column: {asked}"


def test_inputs_of_an_instruction_belong_to_its_prompt() -> None:
    records = [{"instruction": "Q", "input": "X"}, {"instruction": "Q", "context": "Y"}]
    assert [row.messages for row in convert(to_prompts, records)] == [messages("Q\n\nX"), messages("Q\n\nY")]
    (refused,) = convert(to_prompts, [{"instruction": "Q", "context": 3}])
    assert refused.reason == "content is not text: context holds int"


def test_unfit_prompts_are_refused_with_their_reason() -> None:
    turns = [
        [],
        [{"role": "system", "content": "S"}],
        [*messages("Q"), *messages("R")],
        messages(" "),
        [{"role": "assistant", "content": "A"}],
    ]
    made = convert(to_prompts, [{"messages": several} for several in turns])
    assert [row.kind for row in made] == [
        "no messages",
        "no user turn",
        "roles out of order",
        "empty content",
        "roles out of order",
    ]
    assert [row.unit for row in made] == list(range(5))


def test_a_named_shape_leaves_answers_out() -> None:
    record: dict[str, Any] = {"messages": messages("long", "A"), "prompt": "Q", "chosen": "A", "rejected": "B"}
    options = prepare(replace(OPTIONS, shape="prompt"), [record])
    assert [row.messages for row in to_prompts([record], options, 0) if isinstance(row, Conversation)] == [
        messages("Q")
    ]
    with pytest.raises(UserError, match="has the shape prompt, which holds no conversations to learn"):
        list(to_sft([record], options, 0))


def test_pairs_without_a_prompt_of_their_own_hold_none() -> None:
    with pytest.raises(UserError, match=r"has the shape chosen\+rejected, which holds no prompts"):
        convert(to_prompts, [{"chosen": "A", "rejected": "B"}])
    (row,) = convert(to_prompts, [{"prompt": "Q", "chosen": "A", "rejected": "B"}])
    assert row.messages == messages("Q")


def test_later_parts_keep_the_shape_and_count_on(load: Load) -> None:
    records: list[dict[str, Any]] = [
        {"prompt": "Q", "completion": "A"},
        {"messages": []},
        {"prompt": "Q", "completion": "B"},
    ]
    options = prepare(OPTIONS, records[:1])
    whole = list(to_sft(records, options, 0))
    parts = [row for place in range(3) for row in to_sft(records[place : place + 1], options, place)]
    assert parts == whole
    assert [row.units if isinstance(row, SftRow) else row.unit for row in parts] == [(0,), 1, (2,)]
    assert isinstance(parts[1], Refused)
    assert parts[1].reason == "missing column: prompt, completion"


def test_a_converter_does_not_look_at_shapes_by_itself() -> None:
    with pytest.raises(ValueError, match="decided by `prepare`"):
        list(to_sft([{"prompt": "Q", "completion": "A"}], OPTIONS, 0))


def test_no_records_give_no_rows() -> None:
    assert convert(to_sft, []) == []


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_options_that_types_cannot_check(name: str) -> None:
    kind = SOURCES[name]
    options = kind.options(source=name, path="x", language=["en", "Klingonese"], repeat=0.5)
    assert [problem.partition(":")[0] for problem in kind.check(options)][:2] == ["language", "repeat"]
    assert kind.check(kind.options(source=name, path="x", repeat=2.5)) == []
