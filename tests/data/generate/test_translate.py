"""Rows translated line by line: what the teacher sees, what is put back, and why a row fails."""

from __future__ import annotations

import re
from typing import Any

import pytest

from posttrain.data.generate.language_names import direction
from posttrain.data.generate.masking import fault, lines_of, restored
from posttrain.data.generate.prompts import prompt
from posttrain.data.generate.requests import Answer, Failed, Request
from posttrain.data.generate.rollouts.translate import problems_of_translate, prompt_names, translate
from posttrain.recipe.schema_generate import Example, Sampling, Translate
from tests.data.generate.made import Said, Scripted, last_user, outcome, row, truncated, turns

CODE = "```python\nprint('Hello')  # a comment\n```"


def entry(**keys: Any) -> Translate:
    """Return an entry whose gates let everything pass, unless told otherwise."""
    open_gates = {"min_language_score": 0.0, "min_gzip_ratio": 0.0, "max_length_ratio": 100.0}
    return Translate(rollout="translate", name="t", **{"to": "fi", **open_gates, **keys})


def body(request: Request) -> str:
    """Return the line that is to be translated."""
    return last_user(request).split("\n")[-1]


def shouted(request: Request) -> Said:
    """Translate into capitals, which marks survive."""
    return re.sub(r"<X(\d+)/>", r"<x\1/>", body(request).upper())


def translated(text: str, asker: Scripted | None = None, **keys: Any) -> str:
    done = outcome(translate(entry(**keys), 1), row(turns(text, "Yes.")), asker or Scripted(shouted))
    assert done.failed is None
    assert done.messages is not None
    return done.messages[0]["content"]


def test_lines_keep_their_markers_blanks_and_code() -> None:
    lines = [
        "# {}  ",
        "",
        "> {}",
        "  - {}",
        "    2. {}",
        "* [x] {}",
        "12) {}",
        "a) {}",
        "\t",
        CODE,
        "---",
        "| 1 | 2 |",
        "{}\r",
        "",
    ]
    words = ["A heading", "quoted", "one", "two", "three", "four", "five", "last"]
    text = "\n".join(lines).format(*words)
    expected = "\n".join(lines).format(*map(str.upper, words))
    asker = Scripted(shouted)
    assert translated(text, asker) == expected
    asked = [body(request) for request in asker.requests()]
    assert asked == words


@pytest.mark.parametrize(
    "kept",
    [
        "`print(x)`",
        "``a ` b``",
        "```a```",
        "https://example.com/a?b=c&d=e#f",
        "www.example.fi",
        "first.last+tag@example.co.uk",
        "{name}",
        "{{ name }}",
        "${HOME}",
        "{% if x %}",
        "%s",
        "%(count)d",
        "%1$s",
        "%.2f",
        "<b>",
        "</b>",
        '<a href="x y">',
        "<!-- note -->",
        "[NAME]",
        "[PHONE_2]",
        "$x^2 + y$",
        r"\(a_b\)",
        r"\[a_b\]",
        "$$e=mc$$",
        "<x1/>",
    ],
)
def test_placeholders_are_hidden_and_come_back(kept: str) -> None:
    asker = Scripted(shouted)
    assert translated(f"Look at {kept} and go.", asker) == f"LOOK AT {kept} AND GO."
    assert [body(request) for request in asker.requests()] == ["Look at <x1/> and go."]


@pytest.mark.parametrize(
    "text",
    [
        "It is 50% down and 20% off.",
        "It costs $5 or $10.",
        "If a < b then c > d.",
        "[your name here] or [Name]",
        "A (b) c.",
    ],
)
def test_what_only_looks_like_a_placeholder_is_translated(text: str) -> None:
    (line,) = lines_of(text)
    assert line.body == text


def test_the_end_of_a_sentence_is_no_part_of_an_address() -> None:
    (line,) = lines_of("See (https://example.com/a_b), or **www.example.com**. Mail a.b@example.com.")
    assert line.kept == ("https://example.com/a_b", "www.example.com", "a.b@example.com")
    assert line.body == "See (<x1/>), or **<x2/>**. Mail <x3/>."


def test_lines_without_anything_to_translate_are_not_asked() -> None:
    text = "https://example.com\n1 + 1 = 2\n- `code`\n{name}\n\n" + CODE
    asker = Scripted(shouted)
    assert translated(text, asker) == text
    assert asker.asked == []


def test_displayed_formulas_stay() -> None:
    text = "Solve\n$$\na + b\n$$\n  \\[\n x \\text{ for } y\n\\]\n\\begin{align}\na &= b\n\\end{align}\nnow."
    assert translated(text) == text.replace("Solve", "SOLVE").replace("now", "NOW")


@pytest.mark.parametrize("text", ["", "a", "a\n", "\n\na\n b \n", CODE, f"- x\n  {CODE}\ny {{z}} `q`", "~~~\nopen\n"])
def test_lines_with_their_own_bodies_are_the_text(text: str) -> None:
    lines = lines_of(text)
    assert "\n".join(restored(line, {line.body: line.body}) for line in lines) == text


def test_marks_may_move_and_each_line_gets_its_own_back() -> None:
    def swapped(request: Request) -> Said:
        return body(request).replace("<x1/>", "<tmp>").replace("<x2/>", "<x1 />").replace("<tmp>", "<X2>")

    asker = Scripted(swapped)
    assert translated("Put {a} in {b}.\nPut {c} in {d}.", asker) == "Put {b} in {a}.\nPut {d} in {c}."
    assert len(asker.asked) == 1  # with the placeholders hidden, the lines are the same


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Katso.", "placeholder lost: {name}"),
        ("Katso <x1/> ja <x1/> sekä <x2/>.", "placeholder repeated: {name}"),
        ("Katso <x1/> ja <x2/> sekä <x3/>.", "placeholder invented: <x3/>"),
        ("Katso <x1/>:ää ja <x2/>:ssa.", "placeholder bent: https://example.com"),
        (" ", "empty translation"),
        ("Katso <x1/>\nja <x2/>.", "several lines for one: 2"),
        (truncated("Katso <x1/> ja <x2/>."), "answer truncated: finish_reason length"),
        (
            Answer(text="Katso <x1/> ja <x2/>.", finish_reason="content_filter"),
            "answer cut off: finish_reason content_filter",
        ),
    ],
)
def test_a_bad_translation_is_asked_again_once_and_then_fails_the_row(answer: Said, reason: str) -> None:
    text = "Look at {name} and https://example.com."
    asker = Scripted(lambda request: answer)
    failed = outcome(translate(entry(), 1), row(turns(text)), asker)
    assert failed.messages is None
    assert failed.failed == reason
    first, second = asker.requests()
    assert (first.sample, first.seed, first.sampling.temperature) == (0, None, 0.0)
    assert (second.sample, second.sampling.temperature) == (1, 0.5)
    assert second.seed is not None
    good = "Katso <x1/> ja <x2/>."
    mended = Scripted(lambda request: answer if request.sample == 0 else good)
    assert translated(text, mended) == "Katso {name} ja https://example.com."


def test_truncated_lines_can_be_kept_and_are_counted() -> None:
    rollout = translate(entry(keep_truncated=True), 1)
    done = outcome(rollout, row(turns("One.\nTwo.")), Scripted(lambda request: truncated(body(request))))
    assert done.failed is None
    assert done.meta["lines_truncated"] == 2


def test_a_failed_request_fails_the_row_by_the_first_line() -> None:
    def reply(request: Request) -> Said:
        return Failed(f"time-out: {body(request)}") if body(request) != "One." else "Yksi."

    late = Scripted(reply, late=lambda request: 5 if body(request) == "Two." else 1)
    failed = outcome(translate(entry(), 1), row(turns("One.\nTwo.\nThree.")), late)
    assert failed.failed == "time-out: Two."


def test_lines_are_asked_at_once_and_each_text_once() -> None:
    asker = Scripted(shouted, late=lambda request: len(body(request)))
    text = "Refrain.\nFirst verse, a long one.\nRefrain.\nSecond.\n- Refrain."
    assert translated(text, asker) == "REFRAIN.\nFIRST VERSE, A LONG ONE.\nREFRAIN.\nSECOND.\n- REFRAIN."
    assert len(asker.asked) == 3
    assert asker.most == 3


def test_user_turns_or_all() -> None:
    given = row(turns("Hi", "Hello", "Why", "Because", system="Be kind"), id="abc")
    users = outcome(translate(entry(), 1), given, Scripted(shouted))
    assert users.messages == turns("HI", "Hello", "WHY", "Because", system="Be kind")
    every = outcome(translate(entry(turns="all"), 1), given, Scripted(shouted))
    assert every.messages == turns("HI", "HELLO", "WHY", "BECAUSE", system="BE KIND")
    assert given.messages == turns("Hi", "Hello", "Why", "Because", system="Be kind")
    assert (users.language, every.language) == ("fi", "fi")
    assert users.meta["translated_from"] == "en"
    assert users.meta["original"] == "abc"
    assert (users.meta["turns_translated"], users.meta["lines_translated"]) == ("user", 2)
    assert "Hi" not in str(users.meta)


def test_rows_that_cannot_be_translated_fail() -> None:
    rollout = translate(entry(), 1)
    assert outcome(rollout, row(turns("Hei"), language="fi"), Scripted()).failed == "in the language already: fi"
    assert outcome(rollout, row([]), Scripted()).failed == "no turn to translate"


def test_examples_are_earlier_turns_and_the_instruction_comes_first() -> None:
    examples = [Example(source="Good morning.", target="Hyvää huomenta."), Example(source="Thanks!", target="Kiitos!")]
    asker = Scripted(shouted)
    translated("Good night.", asker, examples=examples)
    (request,) = asker.requests()
    assert request.messages is not None
    contents = [message["content"] for message in request.messages]
    assert [message["role"] for message in request.messages] == ["user", "assistant"] * 2 + ["user"]
    assert contents[0].startswith("Käännä tekstiä englannista suomeksi.")
    assert contents[0].endswith("\nGood morning.")
    assert contents[1:] == ["Hyvää huomenta.", "Thanks!", "Kiitos!", "Good night."]


def test_equal_lines_of_different_rows_are_the_same_request_only_where_greedy() -> None:
    def keys(row_id: str, temperature: float) -> bytes:
        asker = Scripted(shouted)
        options = entry(sampling=Sampling(temperature=temperature))
        outcome(translate(options, 1), row(turns("Hello"), id=row_id), asker)
        return asker.requests()[0].key("model", None)

    assert keys("a", 0.0) == keys("b", 0.0)
    assert keys("a", 0.7) != keys("b", 0.7)
    assert keys("a", 0.7) == keys("a", 0.7)


def test_languages_are_called_as_the_prompt_needs_them() -> None:
    assert direction("en", "fi", "fi") == ("englannista", "suomeksi")
    assert direction("sv", "de", "en") == ("Swedish", "German")
    assert direction("fr", "es", "fi") == ("ranskasta", "espanjaksi")
    assert direction("und", "fi", "fi") == (None, "suomeksi")
    assert direction("xx", "yy", "en") == ("xx", "yy")
    assert direction("xx", "yy", "fi") == ("xx-kielestä", "yy-kielelle")
    english = prompt("translate", "sv").render(source=None, target="Swedish", line="Hello")
    assert english.startswith("Translate into Swedish.")
    assert (
        prompt("translate", "fi")
        .render(source=None, target="suomeksi", line="x")
        .startswith("Käännä tekstiä suomeksi.")
    )


def test_a_gate_fails_the_row_with_its_scores() -> None:
    asker = Scripted(lambda request: "Pitkä tarina siitä, mitä ei kysytty, ja vielä vähän lisää.")
    failed = outcome(translate(entry(max_length_ratio=1.5), 1), row(turns("Hello there.")), asker)
    assert failed.messages is None
    assert failed.failed == "length ratio above max_length_ratio: 4.83"
    assert failed.meta["length_ratio"] == 4.8333


def test_problems_are_reported_together_with_their_keys() -> None:
    options = entry(
        examples=[Example(source=" ", target="a\nb"), Example(source="a", target="b")],
    )
    keys = [problem.split(":")[0] for problem in problems_of_translate(options)]
    assert keys == ["examples[0].source", "examples[0].target"]
    assert prompt_names(options) == ["translate"]


@pytest.mark.parametrize("spelling", ["fin", "Finnish"])
def test_a_language_may_be_spelt_as_elsewhere_in_a_recipe(spelling: str) -> None:
    found = []
    for to in ("fi", spelling):
        asker = Scripted(lambda request: "Hei vain.")
        made = outcome(translate(entry(to=to), 1), row(turns("Hello there.")), asker)
        found.append((made, [request.messages for request in asker.requests()]))
    assert found[0] == found[1]
    assert found[1][0].language == "fi"
    same = outcome(translate(entry(to=spelling), 1), row(turns("Hei."), language="fi"), Scripted())
    assert same.failed == "in the language already: fi"


def test_a_mark_is_bent_only_by_what_the_translation_adds() -> None:
    (line,) = lines_of("a.b@example.fi:ssa on <b>.")
    assert fault(line, "On <x1/>:ssa <x2/>.") is None
    (line,) = lines_of("On `f`, see www.example.fi.")
    assert fault(line, "<x1/>:n kohdalla <x2/>.") is None
    assert fault(line, "<x1/>:n kohdalla <x2/>:ssa.") == "placeholder bent: www.example.fi"
