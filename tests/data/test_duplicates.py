"""Rows that are the same or nearly so: keys, signatures, and which rows are removed."""

from __future__ import annotations

import itertools
import math
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.data import lsh, minhash
from posttrain.data.duplicates import SPACELESS, first_occurrences, terms, text_key, words
from posttrain.data.minhash import RECALL, banding, near_duplicates, prompt_text, signatures
from posttrain.data.rows import Row, preference_row, sft_row, turn
from posttrain.recipe.schema_data import NearDuplicates
from tests.helpers import run_python

OPTIONS = NearDuplicates()
COMMON: dict[str, Any] = {"language": "en", "license": None, "units": (0,)}


def sft(*texts: str, system: str | None = None, source: str = "s") -> Row:
    turns = [turn(("user", "assistant")[place % 2], text) for place, text in enumerate(texts)]
    first = [turn("system", system)] if system is not None else []
    return sft_row([*first, *turns], source=source, meta={"from": source}, **COMMON)


def pair(prompt: str, chosen: str, rejected: str) -> Row:
    return preference_row([turn("user", prompt)], chosen, rejected, margin=None, source="s", meta={}, **COMMON)


def table(prompts: list[str], options: NearDuplicates = OPTIONS, groups: list[int] | None = None) -> minhash.Duplicates:
    rows = len(prompts)
    numbers = np.full(rows, -1) if groups is None else np.array(groups)
    return near_duplicates(signatures(prompts, options), np.ones(rows, dtype=bool), numbers, options)


# Keys of the text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sft("Hello there", "Hi"), sft("HELLO  there", "hi\n")),
        (sft("caf\u00e9", "ﬁne"), sft("cafe\u0301", "fine")),
        (sft("a", "b", source="x"), sft("a", "b", source="y")),
        (pair("Q", "A", "B"), pair("q ", "a", " b")),
    ],
)
def test_text_key_ignores_case_blanks_form_and_source(one: Row, other: Row) -> None:
    assert text_key(one) == text_key(other)
    assert len(text_key(one)) == 16


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sft("ab", "c"), sft("a", "bc")),
        (sft("a", "b"), sft("b", "a")),
        (sft("a", "b"), sft("a", "b", system="s")),
        (sft("a", "b", "c", "d"), sft("a", "b c d")),
        (sft("a", "b"), sft("a", "b!")),
        (sft("a", "x 1 y"), sft("a", "x y 1")),
        (pair("Q", "A", "B"), pair("Q", "B", "A")),
        (pair("Q", "A", "B"), pair("Q", "A", "C")),
    ],
)
def test_text_key_keeps_what_differs_apart(one: Row, other: Row) -> None:
    assert text_key(one) != text_key(other)


@pytest.mark.parametrize("kind", ["S16", "V16"])
def test_first_occurrences_is_that_of_a_dictionary(kind: str) -> None:
    rng = random.Random(0)
    # zeros at the end, which numpy's S16 takes for padding
    keys = [bytes(rng.choice((0, 0, 1, 255)) for _ in range(2)) + bytes(12) + rng.choice((b"\0\0", b"\1\0", b"\0\1"))
            for _ in range(500)]  # fmt: skip
    first: dict[bytes, int] = {}
    expected = [first.setdefault(key, place) for place, key in enumerate(keys)]
    found = first_occurrences(np.frombuffer(b"".join(keys), dtype=kind))
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert 10 < len(first) < 500


def test_first_occurrences_of_a_field_of_records_and_of_nothing() -> None:
    records = np.zeros(3, dtype=[("other", np.int32), ("key", "S16")])
    records["key"] = [b"b", b"a", b"b"]
    assert first_occurrences(records["key"]).tolist() == [0, 1, 0]
    assert first_occurrences(np.zeros(0, dtype="S16")).tolist() == []
    with pytest.raises(ValueError, match="16 bytes each"):
        first_occurrences(np.zeros(2, dtype="S15"))


# Words


def plain_words(text: str) -> list[str]:
    """Do what `words` does, by its definition."""
    text = re.sub("['’‘ʼ‛`´]", "", unicodedata.normalize("NFKC", text).casefold())
    found = re.findall(rf"[{SPACELESS}]|[^\W_{SPACELESS}]+", text)
    return [word for word in found if word[0].isalnum()]


def test_words_are_those_of_the_definition_for_every_character() -> None:
    for code in itertools.chain(range(0xD800), range(0xE000, 0x20000)):
        text = f"a{chr(code)}b"
        assert words(text) == plain_words(text), hex(code)


def test_words_are_those_of_the_definition_for_mixed_texts() -> None:
    rng = random.Random(1)
    letters = "abÄö'’‘_-–“ \n\t.ßﬁ½ªµ中ไทยかŠσς´`\x85\xa0\x00e\u0301²"
    for _ in range(5_000):
        text = "".join(rng.choice(letters) for _ in range(rng.randrange(12)))
        assert words(text) == plain_words(text), text


def test_words_of_contractions_compounds_and_inflected_names() -> None:
    assert words("Don’t don't DONT") == ["dont"] * 3
    assert words("well-known, ChatGPT:stä_nyt") == ["well", "known", "chatgpt", "stä", "nyt"]
    assert words("中文 and English") == ["中", "文", "and", "english"]


def test_terms_keep_the_signs_that_carry_meaning() -> None:
    assert terms("(Hello), “World”!") == ["hello", "world"]
    assert terms("What is 3 + 4?") != terms("What is 3 - 4?")
    assert terms("In C++") != terms("In C#")
    assert terms("中文。") == ["中", "文", "。"]


# Signatures


def shingle_set(text: str, n: int = 3) -> set[tuple[str, ...]]:
    found = terms(text)
    return {tuple(found[at : at + n]) for at in range(len(found) - n + 1)}


def jaccard(one: str, other: str) -> float:
    ones, others = shingle_set(one), shingle_set(other)
    return len(ones & others) / len(ones | others)


VOCABULARY = [f"{a}{b}{c}" for a in ("ka", "mo", "ri", "su", "te") for b in ("la", "no", "pi", "ve") for c in "aksn"]


def prompts_of(rng: random.Random, count: int, least: int = 8, most: int = 120) -> list[str]:
    return [" ".join(rng.choices(VOCABULARY, k=rng.randint(least, most))) for _ in range(count)]


def changed(rng: random.Random, text: str, least: float) -> str:
    """Replace, drop or add words as long as the exact similarity stays at `least` or more."""
    best = text
    for _ in range(rng.randint(1, 12)):
        found = best.split()
        at = rng.randrange(len(found))
        found[at : at + rng.randint(0, 1)] = [rng.choice(VOCABULARY)] * rng.randint(0, 1)
        if jaccard(text, tried := " ".join(found)) < least:
            break
        best = tried
    return best


def test_signatures_estimate_the_jaccard_similarity() -> None:
    rng = random.Random(2)
    ones = prompts_of(rng, 400)
    others = [changed(rng, text, 0.3) for text in ones]
    same = (signatures(ones, OPTIONS) == signatures(others, OPTIONS)).mean(axis=1)
    errors = same - np.array([jaccard(*texts) for texts in zip(ones, others, strict=True)])
    assert abs(errors.mean()) < 0.01
    assert errors.std() < math.sqrt(0.25 / OPTIONS.permutations)


def test_signatures_are_those_of_another_process_and_of_other_batches(tmp_path: Path) -> None:
    texts = ["One two three four", "Ääkköset ovat kivoja kirjaimia", "中文", "", "?"]
    script = (
        "import numpy as np, sys\n"
        "from posttrain.data.minhash import signatures\n"
        "from posttrain.recipe.schema_data import NearDuplicates\n"
        f"np.save('out.npy', signatures({texts!r}, NearDuplicates()))\n"
    )
    done = run_python(["-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    alone = np.concatenate([signatures([text], OPTIONS) for text in texts])
    assert alone.shape == (5, 128)
    assert alone.dtype == np.uint32
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), alone)
    assert signatures([], OPTIONS).shape == (0, 128)


def test_short_prompts_are_alike_only_where_all_their_terms_are() -> None:
    found = table(["Hi", "hi!", "?", "!", "😀", "😃", "", "Hi there", "?", "What is 3 + 4?", "What is 3 - 4?"])
    assert dict(zip(found.removed.tolist(), found.kept.tolist(), strict=True)) == {1: 0, 8: 2}


def test_prompts_are_all_user_turns_without_the_system_turn() -> None:
    assert prompt_text(sft("a", "b", "c", "d", system="s")) == "a\nc"
    assert prompt_text(pair("q", "a", "b")) == "q"


# Near-duplicates


@pytest.mark.parametrize("permutations", [16, 100, 128, 256])
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_reach_the_recall_at_the_threshold(threshold: float, permutations: int) -> None:
    bands, width = banding(threshold, permutations)
    assert bands * width <= permutations
    assert 1 - (1 - threshold**width) ** bands >= RECALL or (bands, width) == (permutations, 1)


def removed_by_definition(
    values: np.ndarray[Any, Any], eligible: np.ndarray[Any, Any], groups: np.ndarray[Any, Any], threshold: float
) -> list[tuple[int, int, float]]:
    """Compare every row with every earlier one that stays."""
    stay: list[int] = []
    removed = []
    for row in np.flatnonzero(eligible).tolist():
        shares = [
            (float((values[row] == values[other]).mean()), -other)
            for other in stay
            if groups[row] < 0 or groups[row] != groups[other]
        ]
        share, other = max(shares, default=(0.0, 0))
        if share >= threshold:
            removed.append((row, -other, share))
        else:
            stay.append(row)
    return removed


@pytest.mark.parametrize(("block", "portion"), [(1024, 1 << 22), (7, 50)])
@pytest.mark.parametrize("seed", range(8))
def test_near_duplicates_are_those_of_the_definition(
    seed: int, block: int, portion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minhash, "_BLOCK", block)
    monkeypatch.setattr(lsh, "_PAIRS", portion)
    rng = np.random.default_rng(seed)
    options = NearDuplicates(threshold=(0.7, 0.5, 0.9, 1.0)[seed % 4], permutations=(128, 64, 300)[seed % 3])
    centres = rng.integers(0, 2**32, (12, options.permutations), dtype=np.uint32)
    values = centres[rng.integers(0, 12, 400)]
    noise = rng.random(values.shape) < rng.choice([0.0, 0.0, 0.1, 0.2, 0.4], (400, 1))
    values[noise] = rng.integers(0, 2**32, int(noise.sum()), dtype=np.uint32)
    eligible = rng.random(400) < 0.9
    groups = np.where(rng.random(400) < 0.4, rng.integers(0, 6, 400), -1)
    found = near_duplicates(values, eligible, groups, options)
    expected = removed_by_definition(values, eligible, groups, options.threshold)
    assert len(expected) > 40
    assert found.removed.tolist() == [row for row, _, _ in expected]
    assert found.kept.tolist() == [row for _, row, _ in expected]
    np.testing.assert_allclose(found.similarity, [share for _, _, share in expected], rtol=1e-6)
    assert [str(column.dtype) for column in vars(found).values()] == ["int64", "int64", "float32"]


def test_a_row_is_compared_only_with_rows_that_stay() -> None:
    """Three rows in a chain: the second goes for the first, so the third, like the second alone, stays."""
    first = np.arange(128, dtype=np.uint32)
    second, third = first.copy(), first.copy()
    second[:30] += 1000
    third[:30] = second[:30]
    third[30:60] += 1000
    found = near_duplicates(np.stack([first, second, third]), np.ones(3, dtype=bool), np.full(3, -1), OPTIONS)
    assert (found.removed.tolist(), found.kept.tolist()) == ([1], [0])
    assert found.similarity.tolist() == pytest.approx([98 / 128])


def test_rows_of_one_tree_are_no_duplicates_of_each_other() -> None:
    values = np.tile(np.arange(128, dtype=np.uint32), (4, 1))
    found = near_duplicates(values, np.ones(4, dtype=bool), np.array([5, 5, -1, 5]), OPTIONS)
    assert (found.removed.tolist(), found.kept.tolist()) == ([2], [0])


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_nothing_is_removed_where_nothing_is_alike_or_takes_part(rows: int) -> None:
    values = np.zeros((rows, 128), dtype=np.uint32)
    found = near_duplicates(values, np.zeros(rows, dtype=bool), np.full(rows, -1), OPTIONS)
    assert len(found.removed) == len(found.kept) == len(found.similarity) == 0


def test_planted_near_duplicates_are_found_and_other_rows_stay() -> None:
    """Of 1,000 rows with an exact similarity of 0.8 or more, 970 at least; of 4,000 unrelated ones, none."""
    rng = random.Random(3)
    originals = prompts_of(rng, 1_000, least=20)
    planted = [changed(rng, text, 0.8) for text in originals]
    exact = [jaccard(*texts) for texts in zip(originals, planted, strict=True)]
    assert min(exact) >= 0.8
    assert np.mean([share < 0.9 for share in exact]) > 0.3, "most of the planted rows are too easy"
    found = table([*originals, *prompts_of(rng, 3_000), *planted])
    assert (found.removed >= 4_000).all(), "an unrelated row was removed"
    assert (found.kept == found.removed - 4_000).all()
    assert len(found.removed) >= 970


def comparisons(monkeypatch: pytest.MonkeyPatch, values: np.ndarray[Any, Any]) -> tuple[minhash.Duplicates, int]:
    """Remove near-duplicates, and count the pairs of rows that are compared for it."""
    compared = 0
    count = lsh._count_equal

    def counting(table: Any, ones: Any, others: Any) -> Any:
        nonlocal compared
        compared += len(ones)
        return count(table, ones, others)

    monkeypatch.setattr(lsh, "_count_equal", counting)
    rows = len(values)
    return near_duplicates(values, np.ones(rows, dtype=bool), np.full(rows, -1), OPTIONS), compared


def variants_of(rng: np.random.Generator, centre: np.ndarray[Any, Any], rows: int, noise: float) -> Any:
    values = np.tile(centre, (rows, 1))
    changed = rng.random(values.shape) < noise
    values[changed] = rng.integers(0, 2**32, int(changed.sum()), dtype=np.uint32)
    return values


def test_many_close_variants_of_one_prompt_are_compared_with_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    values = variants_of(rng, rng.integers(0, 2**32, 128, dtype=np.uint32), 10_000, noise=0.1)
    found, compared = comparisons(monkeypatch, values)
    expected = removed_by_definition(values[:300], np.ones(300, dtype=bool), np.full(300, -1), OPTIONS.threshold)
    assert found.removed[found.removed < 300].tolist() == [row for row, _, _ in expected]
    # Two variants may differ in more than 0.3 of their values, so that a few more than one stay.
    assert 1 <= 10_000 - len(found.removed) < 20
    assert compared < 250 * len(values), "all pairs would be 5,000 a row in each band that they share"


def test_many_copies_of_a_prompt_are_not_compared_with_its_distant_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    template = rng.integers(0, 2**32, 128, dtype=np.uint32)
    distant = variants_of(rng, template, 3_000, noise=0.5)
    order = np.r_[0, 1 + rng.permutation(13_000 - 1)]
    values = np.concatenate([np.tile(template, (10_000, 1)), distant])[order]
    found, compared = comparisons(monkeypatch, values)
    assert found.removed.tolist() == np.flatnonzero(order < 10_000)[1:].tolist()
    assert not found.kept.any()
    assert compared < 300 * len(values)
