"""Whether a translation can be one: by its language, by repetition and by length, each against a bound of the recipe.

The bounds are those of the Finnish prompts of Poro 2. Fenced code, which is not translated, is left out of all of them.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import TypeAlias

from posttrain.data.steps.fences import find_fences
from posttrain.data.steps.identifier import check_installed, identify, is_known, same
from posttrain.data.steps.language import prose, telling_words
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Translate

JUDGED_LETTERS = 20  # the language of a line with fewer is not judged by itself
CROP = 1000  # characters of a line by which its language is judged
# Characters. A word's translation may well be twice as long as the word (`yes`, `kyllä`); that of a sentence is not.
JUDGED_LENGTH = 40

Scores: TypeAlias = dict[str, float]


def language_score(text: str, language: str) -> float | None:
    """Return the share of the judged letters of a text that are in lines in a language.

    Code, URLs, tags and formulas are left out, and names where there is enough else (see `telling_words`). Lines with
    fewer than `JUDGED_LETTERS` letters are judged together if no line can be by itself.

    Returns:
        0 to 1; None where there is too little to judge, or the language cannot be told from others.
    """
    if not is_known(language):
        return None
    lines = _prose_lines(text)
    judged = [evidence for line in lines if (evidence := telling_words(line, JUDGED_LETTERS))]
    if not judged:
        together = telling_words(" ".join(lines)[:CROP], JUDGED_LETTERS)
        judged = [together] if together else []
    right = letters = 0
    for evidence in judged:
        found = identify(evidence, (language,))
        if found is None:
            continue
        count = sum(map(str.isalpha, evidence))
        letters += count
        right += count if same(found, language) else 0
    return right / letters if letters else None


def gzip_ratio(text: str) -> float | None:
    """Return compressed by plain size of a text in UTF-8, above 1 for the shortest; None of one without text."""
    plain = _without_fences(text).encode(errors="replace")
    return len(gzip.compress(plain, 9, mtime=0)) / len(plain) if plain.strip() else None


def length_ratio(original: str, translation: str) -> float | None:
    """Return how many times as many characters a translation has; None of one below `JUDGED_LENGTH`."""
    before, after = (len(_without_fences(text).strip()) for text in (original, translation))
    return after / before if before and after >= JUDGED_LENGTH else None


def judge(options: Translate, originals: Sequence[str], translations: Sequence[str]) -> tuple[Scores, str | None]:
    """Judge the translation of a row.

    Args:
        options: The bounds, and the language that was asked for.
        originals: The texts of the turns that were translated.
        translations: What each became.

    Returns:
        The scores that could be had, rounded to four places (of length ratios the largest), and why the row fails, or
        None.
    """
    whole = "\n\n".join(translations)
    lengths = [length_ratio(*pair) for pair in zip(originals, translations, strict=True)]
    found = {
        "language_score": language_score(whole, options.to) if options.min_language_score > 0 else None,
        "gzip_ratio": gzip_ratio(whole),
        "length_ratio": max((ratio for ratio in lengths if ratio is not None), default=None),
    }
    scores = {name: round(score, 4) for name, score in found.items() if score is not None}
    for name, least in (("language_score", options.min_language_score), ("gzip_ratio", options.min_gzip_ratio)):
        score = found[name]
        if score is not None and score < least:
            return scores, f"{name.replace('_', ' ')} below min_{name}: {score:.2f}"
    longest = found["length_ratio"]
    if longest is not None and longest > options.max_length_ratio:
        return scores, f"length ratio above max_length_ratio: {longest:.2f}"
    return scores, None


def problems_of_gates(options: Translate) -> list[str]:
    """Find out whether something is there to identify languages with, where that is asked for."""
    if options.min_language_score == 0:
        return []
    try:
        check_installed("min_language_score", "set it to 0")
    except UserError as missing:
        return missing.problems
    return []


def _without_fences(text: str) -> str:
    return "".join(text[start:end] for start, end in find_fences(text).outside(len(text)))


def _prose_lines(text: str) -> list[str]:
    return [
        cleaned
        for line in _without_fences(text).splitlines()
        if line.strip() and (cleaned := prose([line], CROP)).strip()
    ]
