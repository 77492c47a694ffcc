"""All that is not a table of its own: every number traces, every number type is one that was used, no HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator

from posttrain.preflight.findings import Finding, error
from posttrain.release.card.lint import data, derived, evaluation
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card, without_code, words
from posttrain.release.card.lint.numbers import (
    NUMBER,
    VERSION,
    Known,
    found,
    known_numbers,
    read,
)
from posttrain.release.card.lint.training import dtypes_in
from posttrain.release.card.quantised import HEAD
from posttrain.release.card.results import PERCENT
from posttrain.release.card.training import TITLES

_HTML = re.compile(r"<(?:!--|/?[A-Za-z][^>]*>?)")
_BEFORE = re.compile(
    r"(?:\b(?:by|gain\w*|drop\w*|improv\w*|increas\w*|decreas\w*|rais\w*|f[ae]ll\w*|los[est]\w*|differ\w*|"
    r"better|worse|higher|lower|up|down)\b)(?P<between>[^.;|]{0,40})$",
    flags=re.IGNORECASE,
)
_AFTER = re.compile(
    r"^\s*(?:(?!or\b)\w+\s+)?(?:better|worse|higher|lower|more|less|above|below|gain|drop|improvement|increase|decrease|loss)\b",
    flags=re.IGNORECASE,
)
_LEVEL_WORD = re.compile(r"\b(?:to|at|from)\s*$", flags=re.IGNORECASE)  # "rose to 61.2%" gives no difference


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check all sentences, and the cells of tables that no other rule knows."""
    known = known_numbers(facts)
    texts = [text for _, text in card.sentences] + card.headings[1:]
    for table in card.tables:
        heads = [words(cell) for cell in table.head]
        checked = _checked(heads, facts)
        texts += [
            cell
            for row in table.rows
            for head, cell in zip(heads, row, strict=False)
            if not checked or head == "Advice"
        ]
    for text in texts:
        yield from _numbers(text, known, facts)
    yield from _dtypes(card, facts)
    for line in (text for _, text in card.sentences):
        if _HTML.search(re.sub(r"`[^`]*`", "", line)):
            yield error(f"there is HTML in {_shown(line)}")
    yield from _weights(card, facts)


def _checked(heads: list[str], facts: Facts) -> bool:
    """Say whether the numbers of a table are checked one by one by another rule."""
    known = (evaluation.VALUES, evaluation.COMPARISONS, data.HEAD)
    if any(tuple(heads[: len(head)]) == head for head in known):
        return True
    is_training = not heads[0] and bool(heads[1:]) and set(heads[1:]) <= set(TITLES.values())
    return is_training or (heads[0] == HEAD[0] and facts.variant is not None)


def _numbers(text: str, known: Known, facts: Facts) -> Iterator[Finding]:
    plain = without_code(text)
    for match in VERSION.finditer(plain):
        if match[0] not in known.versions:
            yield error(f"the version {match[0]} in {_shown(text)} is in no file beside the card")
    for match in NUMBER.finditer(plain):
        digits, percent = match["digits"], bool(match["percent"])
        if percent and _is_difference(plain, match, known):
            yield from _change(text, match, facts)
        elif not known.has(digits, percent=percent):
            yield error(f"the number {match[0].strip()} in {_shown(text)} is in no file beside the card")


def _is_difference(plain: str, match: re.Match[str], known: Known) -> bool:
    """Say whether a percentage tells how much more or less something is, and not how much it is."""
    if match["sign"]:
        return True
    before, after = plain[: match.start()], plain[match.end() :]
    if _LEVEL_WORD.search(before) or (
        re.search(r"\b(?:of|with)\s*$", before) and known.has(match["digits"], percent=True)
    ):
        return False
    return bool(_BEFORE.search(before) or _AFTER.match(after))


def _change(text: str, match: re.Match[str], facts: Facts) -> Iterator[Finding]:
    """Check a change in percent: of a result that is itself in percent it has to be in percentage points."""
    digits = match["digits"]
    if found(digits, sorted(derived.perplexity_increases(facts))):
        return
    number, _ = read(digits)
    points = any(abs(value - number) <= 0.5 for value in derived.differences(facts, PERCENT))
    said = f"{match[0].strip()} in {_shown(text)}"
    if points:
        yield error(f"{said}: the difference of two percentages is in percentage points")
    else:
        yield error(f"the change {said} is in no file beside the card")


def _dtypes(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check that each number type on the card is one that a manifest, the results or the weights have."""
    used = {facts.results.get("settings", {}).get("dtype"), facts.config.get("dtype"), facts.config.get("torch_dtype")}
    quantised = facts.variants.get("base") or {}
    used |= {quantised.get("dtype"), *dtypes_in(str(quantised.get("perplexity") or ""))}
    used.add(facts.weights.dtype if facts.weights is not None else None)
    for manifest in facts.manifests.values():
        model = (manifest.get("recipe") or {}).get("model") or {}
        used |= {model.get("dtype"), model.get("trainable_dtype")}
        used |= set(dtypes_in(str((manifest.get("recipe") or {}).get("quantize") or "")))
    lines = [text for _, text in card.sentences]
    lines += [cell for table in card.tables for row in table.rows for cell in row]
    for line in lines:
        for dtype in dtypes_in(words(line)):
            if dtype not in used:
                yield error(f"{_shown(line)} speaks of {dtype}, which no file beside the card does")


def _weights(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check the line that says what the weights are in."""
    saved = facts.weights.dtype if facts.weights is not None else None
    rows = [row for table in card.tables for row in table.rows if words(row[0]) == "Weights" and len(row) > 1]
    for row in rows:
        for dtype in dtypes_in(words(row[1])):
            if dtype != saved:
                yield error(f"the card says that the weights are in {dtype}, and they are in {saved}")


def _shown(text: str) -> str:
    line = " ".join(words(text).split())
    return repr(line if len(line) <= 90 else f"{line[:90]}...")
