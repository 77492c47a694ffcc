"""Conversations that a teacher writes from its bare template: what is asked, what is kept, and why a row fails."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from posttrain.data.generate.categories import built_in
from posttrain.data.generate.instruction_tags import TAGS, read_line, read_structured
from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.requests import Answer, Failed, Request
from posttrain.data.generate.rollouts.magpie import cut, magpie, problems_of_magpie, prompt_names
from posttrain.data.generate.rows import InputRow, Outcome
from posttrain.data.rows import Message
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Category, MagpieRollout, Sampling
from tests.data.generate.made import Said, Script, Scripted, outcome, truncated


@dataclass(frozen=True)
class FakePrefix:
    """A prefix that can be read: the system prompt, then the turns so far."""

    system: str | None
    stop: tuple[str, ...] = ("<end>", "<assistant>")

    def before(self, messages: Sequence[Message]) -> str:
        return (
            f"[{self.system}]" + "".join(f"<{message['role']}>{message['content']}" for message in messages) + "<user>"
        )


def entry(**keys: Any) -> MagpieRollout:
    given: dict[str, Any] = {"categories": [Category(name="Ponds", system="About ponds.")], "rows": 4, "language": "en"}
    return MagpieRollout(rollout="magpie", name="m", **{**given, **keys})


def row(number: int = 0) -> InputRow:
    return InputRow(number=number, id=f"m:{number}", messages=[], language="en")


def write(options: MagpieRollout, asker: Scripted, number: int = 0, seed: int = 1) -> Outcome:
    return outcome(magpie(options, seed, FakePrefix), row(number), asker)


def in_order(*replies: Said) -> Script:
    left = list(replies)
    return lambda request: left.pop(0)


def test_an_instruction_is_completed_and_answered_without_the_system_prompt() -> None:
    asker = Scripted(in_order(" What is a pond?<end> tail", "A small lake."))
    written = write(entry(), asker, number=3)
    assert written.failed is None
    assert written.messages == [
        {"role": "user", "content": "What is a pond?"},
        {"role": "assistant", "content": "A small lake."},
    ]
    instruction, answer = asker.requests()
    assert instruction.prompt == "[About ponds.]<user>"
    assert instruction.messages is None
    assert instruction.sampling == Sampling(temperature=1.0, max_tokens=1024, stop=["<end>", "<assistant>"])
    assert instruction.sample == 3
    assert instruction.seed is not None
    assert answer.messages == ({"role": "user", "content": "What is a pond?"},)
    assert answer.prompt is None
    assert answer.seed is None  # greedy by default
    assert answer.sample == 0
    assert written.meta["category"] == "Ponds"
    assert written.meta["finish_reason"] == "stop"


def test_rows_of_one_prefix_are_asked_differently_and_the_same_row_alike() -> None:
    def keys(number: int, seed: int) -> list[bytes]:
        asker = Scripted(in_order("Q", "A"))
        write(entry(sampling=Sampling(temperature=0.7)), asker, number=number, seed=seed)
        return [request.key("model", None) for request in asker.requests()]

    assert keys(0, 1) == keys(0, 1)
    assert not set(keys(0, 1)) & set(keys(1, 1))
    assert not set(keys(0, 1)) & set(keys(0, 2))


def test_further_turns_see_the_conversation_and_have_a_system_prompt_of_their_own() -> None:
    asker = Scripted(in_order("Eka?", "Yksi.", "Toka?", "Kaksi.", "Kolmas?", "Kolme."))
    written = write(entry(turns=3, language="fi"), asker)
    assert written.failed is None
    assert [message["content"] for message in written.messages or []] == [
        "Eka?",
        "Yksi.",
        "Toka?",
        "Kaksi.",
        "Kolmas?",
        "Kolme.",
    ]
    first, second, third = [request.prompt for request in asker.requests() if request.prompt is not None]
    follow_up = prompt("follow-up", "fi").text.strip()
    assert "suomeksi" in follow_up
    assert first == "[About ponds.]<user>"
    assert second == f"[{follow_up}]<user>Eka?<assistant>Yksi.<user>"
    assert third == f"[{follow_up}]<user>Eka?<assistant>Yksi.<user>Toka?<assistant>Kaksi.<user>"
    assert asker.requests()[3].messages == (
        {"role": "user", "content": "Eka?"},
        {"role": "assistant", "content": "Yksi."},
        {"role": "user", "content": "Toka?"},
    )
    assert len({request.seed for request in asker.requests() if request.prompt}) == 3


def test_where_there_is_no_prompt_for_follow_ups_the_category_goes_on() -> None:
    asker = Scripted(in_order("En?", "Ett.", "Två?", "Två."))
    write(entry(turns=2, language="sv"), asker)
    assert (asker.requests()[2].prompt or "").startswith("[About ponds.]")


def test_rows_are_steered_by_their_category() -> None:
    options = entry(categories=[], rows=100, language="fi")
    asker = Scripted(lambda request: "Mikä on lampi?" if request.prompt else "Pieni järvi.")
    rollout = magpie(options, 1, FakePrefix)
    outcomes = [outcome(rollout, row(number), asker) for number in range(100)]
    assert sum(written.meta["category"] == "Information seeking" for written in outcomes) == 52
    for written, request in zip(outcomes, asker.requests()[::2], strict=True):
        assert request.prompt == f"[{built_in('fi')[written.meta['category']]}]<user>"
        assert written.language == "fi"


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (["  <end>"], "empty instruction"),
        ([truncated("What is")], "instruction truncated: finish_reason length"),
        (
            [Answer(text="What is", finish_reason="content_filter")],
            "instruction cut off: finish_reason content_filter",
        ),
        (["Say <|im_start|> twice"], "chat markup in the text: <|im_start|>"),
        (["Tell\0me"], "NUL in the content: the user turn"),
        (["Q", truncated("A")], "answer truncated: finish_reason length"),
        (["Q", Answer(text="A", finish_reason="content_filter")], "answer cut off: finish_reason content_filter"),
        (["Q", " "], "empty answer"),
        (["Q", "A <start_of_turn>user"], "chat markup in the text: <start_of_turn>"),
        ([Failed("time-out: 6 attempts")], "time-out: 6 attempts"),
    ],
)
def test_a_row_fails_with_a_reason(replies: list[Said], reason: str) -> None:
    written = write(entry(), Scripted(in_order(*replies)))
    assert written.messages is None
    assert written.failed == reason


def test_a_later_turn_fails_the_row_and_is_named_after_the_kind() -> None:
    assert write(entry(turns=2), Scripted(in_order("Q", "A", "Q"))).failed == "instruction repeated: turn 2"
    failed = write(entry(turns=2), Scripted(in_order("Q", "A", "R", Failed("time-out: 6 attempts"))))
    assert failed.messages is None
    assert failed.failed == "time-out: 6 attempts, turn 2"
    assert write(entry(turns=2), Scripted(in_order(" "))).failed == "empty instruction: turn 1"


def test_a_truncated_instruction_that_was_ended_is_whole() -> None:
    asker = Scripted(in_order(truncated("Q<end>and more"), "A"))
    assert write(entry(), asker).failed is None


def test_keep_truncated_speaks_of_answers_alone() -> None:
    cut_off = truncated("A")
    written = write(entry(keep_truncated=True, turns=2), Scripted(in_order("Q", cut_off, "R", "B")))
    assert written.failed is None
    assert written.meta["finish_reason"] == "length"
    assert write(entry(keep_truncated=True), Scripted(in_order(truncated("Q")))).failed


def test_a_conversation_that_the_template_refuses_fails_its_row_alone() -> None:
    class Picky(FakePrefix):
        def before(self, messages: Sequence[Message]) -> str:
            if messages:
                raise UserError("it refuses a conversation.")
            return super().before(messages)

    rollout = magpie(entry(turns=2), 1, Picky)
    refused = outcome(rollout, row(), Scripted(in_order("Q", "A")))
    assert refused.failed == "conversation does not fit the chat template: it refuses a conversation., turn 2"


def test_a_template_without_room_for_a_system_prompt_is_found_before_anything_is_asked() -> None:
    def refuses(system: str | None) -> FakePrefix:
        raise UserError("no system prompt in this template")

    with pytest.raises(UserError, match="no system prompt"):
        magpie(entry(), 1, refuses)


def test_an_unsteered_category_has_no_system_prompt() -> None:
    asker = Scripted(in_order("Q", "A"))
    write(entry(categories=[Category(name="Anything")]), asker)
    assert asker.requests()[0].prompt == "[None]<user>"


def teacher(request: Request) -> Said:
    return "What is a pond?" if request.prompt else "A small lake."


def judge(said: dict[str, list[str]]) -> Script:
    """Answer what is said of each column, one after the other."""
    columns = {"difficult": "difficulty", "how good": "input_quality", "into categories": "task_category"}

    def reply(request: Request) -> Said:
        assert request.messages is not None
        text = request.messages[0]["content"]
        assert "What is a pond?" in text
        return said[next(column for sign, column in columns.items() if sign in text.split("\n")[0])].pop(0)

    return reply


def test_the_judge_tags_the_first_instruction() -> None:
    said = {
        "difficulty": ["It is a matter of fact.\n\n**Difficulty: Very easy**"],
        "input_quality": ["Hm.", "Clear.\nQuality: good"],
        "task_category": ["Facts.\nCategory: Trivia", "Category: Information seeking or Math"],
    }
    asker = Scripted(teacher, judge(said))
    written = write(entry(tag=True), asker)
    assert written.failed is None
    assert written.meta["difficulty"] == "very easy"
    assert written.meta["input_quality"] == "good"
    assert "task_category" not in written.meta
    assert written.meta["untagged"] == ["task_category"]
    asks = asker.requests("judge")
    assert len(asks) == 5  # once, and again for what could not be read
    assert all(request.schema is None for request in asks)
    assert {(request.sample, request.sampling.temperature, request.seed is None) for request in asks} == {
        (0, 0.0, True),
        (1, 0.7, False),
    }


def test_a_server_that_enforces_a_schema_is_given_one() -> None:
    said = {
        "difficulty": ['{"reason": "...", "label": "hard"}'],
        "input_quality": ["Quality: good", '{"reason": "...", "label": "excellent"}'],
        "task_category": ['{"reason": "...", "label": "Math"}'],
    }
    asker = Scripted(teacher, judge(said), structured=True)
    written = write(entry(tag=True), asker)
    assert {key: written.meta[key] for key in ("difficulty", "input_quality", "task_category")} == {
        "difficulty": "hard",
        "input_quality": "excellent",
        "task_category": "Math",
    }
    assert "untagged" not in written.meta
    for request in asker.requests("judge"):
        assert request.schema is not None
        assert request.messages is not None
        assert json.dumps(request.schema["properties"]["label"]["enum"][0])[1:-1] in request.messages[0]["content"]


def test_a_judge_that_fails_leaves_the_row_untagged() -> None:
    written = write(entry(tag=True), Scripted(teacher, lambda request: Failed("503")))
    assert written.failed is None
    assert written.meta["untagged"] == ["difficulty", "input_quality", "task_category"]


@pytest.mark.parametrize("language", ["en", "fi"])
@pytest.mark.parametrize("tag", TAGS, ids=lambda tag: tag.column)
def test_prompts_name_every_label_and_the_line_that_is_read(language: str, tag: Any) -> None:
    found = prompt(tag.prompt, language)
    assert found.language == language
    plain = found.render(instruction="What is a pond?", structured=False)
    structured = found.render(instruction="What is a pond?", structured=True)
    for label in tag.labels:
        assert f"- {label}" in plain
        assert f"- {label}" in structured
    last = plain.splitlines()[-1].split(":")[0]
    assert last == tag.called[0 if language == "en" else 1]
    assert read_line(f"Reason.\n{last}: {tag.labels[2]}", tag) == tag.labels[2]
    assert '"reason"' in structured
    assert '"label"' in structured


@pytest.mark.parametrize(
    "text",
    [
        "",
        "easy",
        "Difficulty: simple",
        "Difficulty: easy or medium",
        "Difficulty: easy\nBut it may be harder.",
        "Difficulty: easy\nDifficulty: hard",
        "The difficulty: easy",
        '{"label": "easy"}',
    ],
)
def test_what_is_no_labelled_line_is_never_guessed(text: str) -> None:
    assert read_line(text, TAGS[0]) is None


def test_a_labelled_line_may_be_marked_up() -> None:
    for text in (
        "Difficulty: easy",
        "**Difficulty:** easy",
        "### Vaikeus: *Easy*.",
        "> difficulty : EASY",
        "- x\n`Vaikeus: easy`",
    ):
        assert read_line(text, TAGS[0]) == "easy"


@pytest.mark.parametrize(
    "text", ["", "easy", "[]", '{"label": 3}', '{"label": "simple"}', '{"reason": "easy"}', "[" * 100_000]
)
def test_what_does_not_follow_the_schema_is_no_label(text: str) -> None:
    assert read_structured(text, TAGS[0]) is None


def test_cutting() -> None:
    assert cut(" a b ", ["<x>"]) == ("a b", False)
    assert cut("a<y>b<x>", ["<x>", "<y>"]) == ("a", True)
    assert cut("a", [""]) == ("a", False)


def test_problems_are_reported_together_with_their_keys() -> None:
    options = entry(instruction=Sampling(temperature=0.0), categories=[Category(name="a"), Category(name="a")])
    keys = [problem.split(":")[0] for problem in problems_of_magpie(options)]
    assert keys == ["instruction.temperature", "categories"]
    assert problems_of_magpie(entry()) == []


@pytest.mark.parametrize("spelling", ["fin", "Finnish"])
def test_a_language_may_be_spelt_as_elsewhere_in_a_recipe(spelling: str) -> None:
    found = []
    for language in ("fi", spelling):
        asker = Scripted(in_order("Eka?", "Yksi.", "Toka?", "Kaksi."))
        made = write(entry(turns=2, language=language, categories=[]), asker)
        found.append((made, [(request.prompt, request.messages) for request in asker.requests()]))
    assert found[0] == found[1]
    assert found[1][0].language == "fi"


def test_names_of_the_prompts_that_are_used() -> None:
    assert prompt_names(entry()) == []
    assert prompt_names(entry(turns=2, tag=True)) == ["follow-up", "difficulty", "quality-of-instruction", "category"]
