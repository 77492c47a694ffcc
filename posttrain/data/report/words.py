"""How counts, shares, steps and languages are put into words, in the report and on the dataset card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posttrain.data.rows import SEVERAL_LANGUAGES, UNKNOWN_LANGUAGE

# The order in which the build applies them; what it says of a row that it refuses.
STEPS = {
    "read": "could not be read",
    "convert": "no row could be made of it",
    "markup": "holds a chat template's own tokens",
    "truncation": "answer cut off",
    "length": "too short or too long",
    "language": "in another language",
    "repetition": "answer repeats itself",
    "refusal": "answer is a refusal",
    "vendor": "answer names another model or its maker",
    "decontaminate": "contains a prompt of an evaluation",
    "dedup": "duplicate",
    "near_duplicates": "near-duplicate",
    "semantic_duplicates": "semantic duplicate",
    "split": "prompt is held out",
}
STEP_NAMES = {
    "dedup": "duplicates",
    "near_duplicates": "near-duplicates",
    "semantic_duplicates": "semantic duplicates",
    "decontaminate": "contamination",
}
SET_NAMES = {"sft": "SFT mixture", "preference": "Preference pairs"}
PII_KINDS = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "fi_personal_id": "Finnish personal identity codes",
    "iban": "IBANs",
}
COMMERCIAL = {"yes": "allowed", "no": "not allowed", "conditions": "allowed on conditions", "unknown": "not known"}


def count(number: float) -> str:
    """Write a whole number with separators: `1,234,567`."""
    return f"{number:,.0f}"


def percent(part: float, whole: float) -> str:
    """Write a share with one decimal; never `0.0%` or `100.0%` of what is not quite that."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return f"{share:.1f}%"


def plural(number: int, noun: str) -> str:
    """Write a count with its noun: `1 row`, `2,000 rows`."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def sentence(text: str) -> str:
    """Begin a text with a capital letter, and leave the rest as it is."""
    return text[:1].upper() + text[1:]


def several(items: Iterable[str], last: str = "and") -> str:
    """Join items as a sentence does: `a, b and c`."""
    words = list(items)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def step_order(step: str) -> tuple[int, str]:
    """Sort steps in the order of the build; one that is not known comes after those that are."""
    known = list(STEPS)
    return (known.index(step) if step in STEPS else len(known), step)


def step_name(step: str) -> str:
    """Return what the report calls a step."""
    return STEP_NAMES.get(step, step.replace("_", " "))


def readable_language(code: str) -> str:
    """Return the code of a language, or what the two codes that stand for none mean."""
    return {UNKNOWN_LANGUAGE: "not stated", SEVERAL_LANGUAGES: "several"}.get(code, code)


def losses(sources: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Add up the rejections of several sources: counts by step and reason, most frequent first within a step."""
    total: dict[str, dict[str, int]] = {}
    for source in sources:
        for step, reasons in source["rejected"].items():
            into = total.setdefault(step, {})
            for reason, number in reasons.items():
                into[reason] = into.get(reason, 0) + number
    return {step: by_count(total[step]) for step in sorted(total, key=step_order)}


def by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """Order counts, the largest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def visible(text: str) -> str:
    """Show control characters, which HTML may not hold, as their Unicode pictures."""
    return text.translate(_PICTURES)


_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10, 13)} | {0x7F: 0x2421}
