"""The recipe's data section in words: what was filtered, compared, masked and held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.data.report.words import PII_KINDS, count, sentence, several, step_name

_OWN_LINES = {"source", "path", "name"}


def in_words(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Describe every step that was on, in the order of the build: its name, and what it did with which parameters.

    Args:
        settings: The data section of the recipe as plain values, as `summary.json` holds it.
    """
    lines = []
    for name, options in (settings.get("filters") or {}).items():
        if options is not None:
            words = _FILTERS[name](options) if name in _FILTERS else _plain(options)
            lines.append((sentence(step_name(name)), words))
    order = [sentence(step_name(name)) for name in _FILTERS]
    lines.sort(key=lambda line: order.index(line[0]) if line[0] in order else len(order))
    if pii := settings.get("pii"):
        kinds = several(PII_KINDS.get(kind, kind) for kind in pii["kinds"])
        where = "also in code blocks" if pii["code"] else "outside fenced code blocks"
        lines.append(("Personal data", f"{sentence(kinds)} are replaced by a mark of their kind, {where}."))
    if decontamination := settings.get("decontaminate"):
        lines.append(("Contamination", _decontamination(decontamination)))
    lines += _duplicates(settings.get("duplicates") or {})
    lines += _skipped(settings)
    if validation := settings.get("validation"):
        words = (
            f"{100 * validation['fraction']:g}% of the conversation trees or prompts, at most "
            f"{count(validation['max_rows'])} rows a set, are held out; no prompt is on both sides."
        )
        lines.append(("Validation", words))
    return lines


def _markup(options: Mapping[str, Any]) -> str:
    return f"Rows that hold a chat template's own tokens are rejected{_added(options.get('tokens'))}."


def _truncation(options: Mapping[str, Any]) -> str:
    return (
        "Answers that were cut off are rejected: the source says so, a code fence is left open, or an answer of "
        f"{count(options['min_chars'])} characters or more stops in mid-sentence."
    )


def _length(options: Mapping[str, Any]) -> str:
    parts = []
    for key, what, unit in (
        ("prompt", "user turns", "characters"),
        ("response", "answers", "characters"),
        ("tokens", "whole conversations", "tokens"),
    ):
        least, most = options.get(f"min_{key}"), options.get(f"max_{key}")
        if least is not None and most is not None:
            parts.append(f"{what} of {count(least)} to {count(most)} {unit}")
        elif least is not None:
            parts.append(f"{what} of at least {count(least)} {unit}")
        elif most is not None:
            parts.append(f"{what} of at most {count(most)} {unit}")
    return f"Kept are {several(parts)}." if parts else "No bounds are set."


def _language(options: Mapping[str, Any]) -> str:
    words = (
        f"The language is identified from the first {count(options['crop'])} characters of texts with at least "
        f"{count(options['min_letters'])} letters; rows in a language that their entry does not name are rejected"
    )
    return words + (", and so are answers in another language than their prompt." if options["match_response"] else ".")


def _repetition(options: Mapping[str, Any]) -> str:
    return (
        f"Answers of {count(options['min_words'])} words or more are rejected where over {options['max_share']:.0%} of "
        f"their word {options['ngram']}-grams have occurred before in them."
    )


def _refusal(options: Mapping[str, Any]) -> str:
    return f"Answers that open with a refusal are rejected{_added(options.get('phrases'))}."


def _vendor(options: Mapping[str, Any]) -> str:
    return f"Answers that name another model or its maker are rejected{_added(options.get('names'))}."


_FILTERS = {
    "markup": _markup,
    "truncation": _truncation,
    "length": _length,
    "language": _language,
    "repetition": _repetition,
    "refusal": _refusal,
    "vendor": _vendor,
}


def _added(items: Any) -> str:
    return f"; added to the built-in ones: {several(map(repr, items))}" if items else ""


def _plain(options: Any) -> str:
    if not isinstance(options, Mapping):
        return str(options)
    return ", ".join(f"{key}: {value}" for key, value in options.items()) or "on"


def eval_sets(settings: Mapping[str, Any]) -> list[str]:
    """Return what the report calls the evaluation sets that the rows were compared with."""
    against = (settings.get("decontaminate") or {}).get("against") or []
    return [entry.get("name") or entry["path"] for entry in against]


def _decontamination(options: Mapping[str, Any]) -> str:
    lengths = dict(options["ngram"])
    default = lengths.pop("default", None)
    n = several([f"{number} for {language}" for language, number in lengths.items()])
    others = f"{default}{' for other languages' if lengths else ''}" if default else ""
    names = several(
        f"{entry.get('name') or entry['path']}" + (f" (revision {entry['revision']})" if entry.get("revision") else "")
        for entry in options["against"]
    )
    return (
        f"Rows whose user turns hold {options['threshold']:.0%} or more of the word n-grams of a prompt of {names} are "
        f"rejected; n is {several([part for part in (n, others) if part])}."
    )


def _duplicates(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    if options.get("exact"):
        lines.append(("Duplicates", "Of rows with equal text but for case, blanks and Unicode form the first is kept."))
    else:
        lines.append(("Duplicates", "Of rows with equal content the first is kept."))
    if near := options.get("near"):
        words = (
            f"In {several(near['sets'])}, a row goes where the prompt of an earlier row has an estimated Jaccard "
            f"similarity of {near['threshold']:g} or more, by MinHash with {count(near['permutations'])} "
            f"permutations over word {near['ngram']}-grams."
        )
        lines.append(("Near-duplicates", words))
    if semantic := options.get("semantic"):
        revision = f" (revision {semantic['revision']})" if semantic["revision"] else ""
        whose = f" from {several(semantic['sources'])}" if semantic["sources"] else ""
        words = (
            f"Among the rows of {several(semantic['sets'])}{whose}, a row goes where the first prompt of an earlier "
            f"row is at a squared Euclidean distance of {semantic['threshold']:g} or less (a cosine of "
            f"{1 - semantic['threshold'] / 2:g} or more), by the embeddings of {semantic['model']}{revision}."
        )
        lines.append(("Semantic duplicates", words))
    return lines


def _skipped(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    skipped = [
        f"{entry.get('name') or entry['source']}: {several(map(step_name, entry['skip']))}"
        for kind in ("sft", "preference")
        for entry in settings.get(kind) or []
        if entry.get("skip")
    ]
    return [("Steps left out", "; ".join(skipped) + ".")] if skipped else []


def entry_settings(settings: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the options of the entry at a place such as `data.sft.0` that were set, without those of its name."""
    _, kind, number = place.split(".")
    entries = settings.get(kind) or []
    if not number.isdigit() or int(number) >= len(entries):
        return {}
    entry = entries[int(number)]
    return {key: value for key, value in entry.items() if value not in (None, [], {}) and key not in _OWN_LINES}
