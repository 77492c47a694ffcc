"""Languages are told apart, what the source says is believed where the text does not clearly say otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.data.rows import SEVERAL_LANGUAGES, UNKNOWN_LANGUAGE, Row
from posttrain.data.steps.base import Rejected
from posttrain.data.steps.identifier import identify, same
from posttrain.data.steps.language import Language, as_stated, prose, telling_words
from posttrain.errors import UserError
from posttrain.recipe.schema_data import LanguageFilter
from tests.data.steps.made import pair, reasons, sft
from tests.data.steps.real import real_texts

pytest.importorskip("heliport", reason="heliport needs Python 3.11")

FI = "Selitä minulle lyhyesti, miten tietokone toimii."
EN = "Please explain to me briefly how a computer works."
DE = "Erkläre mir bitte kurz, wie ein Computer funktioniert."
STEP = Language(LanguageFilter(), ["en", "fi"])


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("fi", FI),
        ("en", EN),
        ("de", DE),
        ("sv", "Jag bor i ett litet hus vid skogen tillsammans med min familj."),
        ("et", "Ma elan väikeses majas metsa ääres koos oma perega."),
        ("no", "Jeg bor i et lite hus ved skogen sammen med familien min."),
        ("zh", "我今天很高兴见到你们大家。"),
        ("uk", "Я живу в маленькому будинку біля лісу разом із родиною."),
        ("id", "Saya tinggal di rumah kecil di dekat hutan bersama keluarga saya."),
        ("hbs", "Živim u maloj kući pored šume zajedno sa svojom porodicom."),
    ],
)
def test_languages_have_the_codes_of_the_project(language: str, text: str) -> None:
    assert identify(text) == language
    assert identify(text, [language]) == language
    assert identify(text, ["fi", "en"]) == language


def test_a_likely_language_is_taken_unless_another_is_clearly_better() -> None:
    names = "Samsung, Google, Nokia, Nextel"
    assert identify(names) != "en"
    assert identify(names, ["en"]) == "en"
    assert identify(FI, ["en"]) == "fi"
    assert identify("Živim u maloj kući pored šume.", ["hr"]) == "hr"


def test_languages_that_cannot_be_told_apart_are_the_same() -> None:
    assert same("hr", "sr")
    assert same("nb", "no")
    assert not same("fi", "et")


def test_rows_are_selected_by_the_language_of_the_prompt() -> None:
    rows = [sft(FI, FI), sft(EN, EN), sft(DE, DE), sft(DE, DE, language="en"), sft(FI, FI, language="sv")]
    refused = ["language not selected: de", "language not selected: de", "language not selected: sv"]
    assert reasons(STEP, rows) == [None, None, *refused]
    assert reasons(Language(LanguageFilter(), []), rows[:3]) == [None] * 3


def test_an_undetermined_language_is_filled_in() -> None:
    rows = [sft(FI, FI), sft(EN, EN), sft("Ok.", "Hei!"), sft(EN, EN, language="en")]
    assert [getattr(result, "language", None) for result in STEP(rows)] == ["fi", "en", "und", "en"]
    assert getattr(STEP([pair(FI, EN, FI)])[0], "language", None) == "fi"


def test_an_answer_in_another_language_is_refused() -> None:
    rows: list[Row] = [
        sft(EN, FI),
        sft(FI, EN, language="en"),
        sft(DE, "Hei!", language="fi"),
        pair(FI, EN, FI),
        pair(EN, FI, FI),
    ]
    assert reasons(STEP, rows) == [
        "response in another language: prompt fi, response en",
        "response in another language: prompt en, response fi",
        "response in another language: prompt fi, response de",
        None,
        "response in another language: prompt fi, response en",
    ]
    assert reasons(Language(LanguageFilter(match_response=False), ["en", "fi"]), rows) == [None] * 5


def test_translations_short_texts_and_stated_languages_are_believed() -> None:
    translated = "Käännä suomeksi: " + "The lake is calm and the boat that I bought last year is red. " * 3
    rows = [
        sft(EN, FI, language=SEVERAL_LANGUAGES),
        sft("OK!", "OK?", language="en"),
        sft("Järvi on tyyni ja vene, jonka ostin, on punainen.", translated, language="fi"),
        sft("Samsung, Google, Nokia, Nextel", EN, language="en"),
    ]
    assert reasons(STEP, rows) == [None] * 4


def test_code_links_and_formulas_are_left_out() -> None:
    code = "```python\n" + "for item in the_list_of_things:\n    print(item)\n" * 20 + "```\n"
    assert reasons(STEP, [sft(code + FI, FI), sft(EN, code + FI)]) == [
        None,
        "response in another language: prompt fi, response en",
    ]
    cleaned = prose(["a `b c` https://example.org/x <b>d</b> $e+f$ g@h.fi i ", "```\nj\n```\nk"], 100)
    assert cleaned.split() == ["a", "d", "i", "k"]


def test_names_count_only_where_there_is_little_else() -> None:
    assert telling_words("Matti lähti eilen illalla Helsinkiin", 10) == "lähti eilen illalla"
    assert telling_words("Matti lähti eilen illalla", 20) == "Matti lähti eilen illalla"
    assert telling_words("Samsung, Google, Nokia ja Nextel", 20) == ""
    assert telling_words("Hei vaan", 20) == ""
    assert telling_words("我今天很高兴见到你们大家", 5) == "我今天很高兴见到你们大家"


def test_only_the_beginning_is_read() -> None:
    assert prose(["abc def", "ghi"], 5) == "abc d"
    assert reasons(Language(LanguageFilter(crop=50), []), [sft(FI + " " + EN * 9, FI)]) == [None]


def test_a_language_that_cannot_be_identified_is_believed() -> None:
    assert reasons(Language(LanguageFilter(), ["tlh"]), [sft(EN, EN, language="tlh")]) == [None]


@pytest.mark.parametrize(
    ("stated", "wanted", "found"),
    [
        ("en", [], "en"),
        ("en", ["fi", "en"], "en"),
        (UNKNOWN_LANGUAGE, [], UNKNOWN_LANGUAGE),
        (UNKNOWN_LANGUAGE, ["fi"], "fi"),
        (UNKNOWN_LANGUAGE, ["fi", "en"], Rejected("language not stated")),
        ("sv", ["fi"], Rejected("language not selected: sv")),
        (SEVERAL_LANGUAGES, ["fi", "en"], Rejected("language not selected: mul")),
    ],
)
def test_without_a_look_at_the_text_the_source_is_believed(
    stated: str, wanted: list[str], found: str | Rejected
) -> None:
    row = as_stated(sft(EN, EN, language=stated), wanted)
    assert (row if isinstance(row, Rejected) else row.language) == found


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.data.steps.identifier.find_spec", lambda name: None)
    with pytest.raises(UserError, match="heliport is not installed"):
        Language(LanguageFilter(), ["fi"])


def test_the_identifier_is_loaded_by_the_preload_module_alone() -> None:
    script = (
        "import sys, posttrain.data.steps.chain as c; assert 'heliport' not in sys.modules;"
        "import posttrain.data.steps.identifier_preload; from posttrain.data.steps.identifier import identifier;"
        "assert 'heliport' in sys.modules and identifier.cache_info().currsize == 1;"
        "heavy = {'torch', 'transformers', 'datasets', 'trl', 'pyarrow', 'tokenizers'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("likely", [(), ("en", "fi")], ids=["any", "candidates"])
def test_98_percent_of_real_texts_are_right(real_data: Path, likely: tuple[str, ...]) -> None:
    right = judged = total = 0
    for language, text in real_texts(real_data):
        if evidence := telling_words(prose([text], 400), 20):
            judged += 1
            right += identify(evidence, likely) == language
        total += 1
    assert judged > 0.85 * total
    assert right >= 0.98 * judged
