"""The licence: the one that was given, not another or newer one than the base's without a reason, and what it asks."""

from __future__ import annotations

from collections.abc import Iterator

from posttrain.data.licences import licence
from posttrain.preflight.findings import Finding, error, warning
from posttrain.release.card.inputs import CardInputs, CardLicense
from posttrain.release.card.lint.facts import Facts
from posttrain.release.card.lint.markdown import Card, words
from posttrain.release.card.terms import NAME_BEGINS, marks, metadata, newer, same


def check(card: Card, facts: Facts) -> Iterator[Finding]:
    """Check the licence in the metadata and in the text, and what it asks for."""
    values = facts.card.get("license") or {}
    stated = CardLicense(
        ids=tuple(values.get("ids") or ()),
        base=tuple(values.get("base") or ()),
        reason=values.get("reason"),
        files=tuple(values.get("files") or ()),
    )
    yield from _in_metadata(card, facts, stated)
    yield from _against_base(card, facts, stated)
    text = words(card.text)
    for id in stated.ids:
        if licence(id).name not in text:
            yield error(f"the text does not name the licence, {licence(id).name}")
        if not licence(id).known:
            yield warning(f"the licence {id} is not known here; see that the card says what it asks for")
    for mark in marks(stated.ids):
        if mark not in text:
            yield error(f"the words {mark!r} are not on the card, and {stated.ids[0]} asks for them")
    for id in stated.ids:
        begins = NAME_BEGINS.get(id.lower())
        if begins is not None and not _begins(facts.title, begins):
            yield warning(f"the name {facts.title!r} does not begin with {begins!r}, as {licence(id).name} asks")
    for name in stated.files:
        if not (facts.folder / name).is_file():
            yield error(f"the text of the licence, {name}, is not in the folder")
    if marks(stated.ids) and not stated.files:
        yield error(f"the text of the licence is not in the folder, and {stated.ids[0]} asks for it")


def _begins(title: str, begins: str) -> bool:
    plain = "".join(letter for letter in title.lower() if letter.isalnum() or letter == ".")
    return plain.startswith(begins.lower().replace(" ", ""))


def _in_metadata(card: Card, facts: Facts, stated: CardLicense) -> Iterator[Finding]:
    inputs = CardInputs(name="", repository="", kind="base", recipe={}, manifests={}, license=stated)
    for key, value in metadata(inputs).items():
        found = card.metadata.get(key)
        if found != value:
            yield error(f"metadata: {key} is {found!r}, and the licence that was given makes it {value!r}")


def _against_base(card: Card, facts: Facts, stated: CardLicense) -> Iterator[Finding]:
    """Compare with the base's licence what was given and, apart from that, what the metadata says."""
    if not stated.base:
        if facts.card.get("base_model"):
            yield warning(
                f"the licence of {facts.card['base_model']} is not known, so this one was not compared with it"
            )
        return
    written = card.metadata.get("license")
    shown = [written] if isinstance(written, str) else [str(each) for each in written or ()]
    ids = stated.ids if shown == ["other"] else tuple(shown)
    given = stated.reason is not None and words(stated.reason) in words(card.text)
    for id in ids:
        for base in stated.base:
            if newer(id, base) and not given:
                yield error(f"the licence {id} is newer than that of the base, {base}, and the card gives no reason")
    if not same(ids, stated.base) and not given:
        yield error(
            f"the licence is {_several(ids)}, that of the base {_several(stated.base)}, and the card gives no reason"
        )


def _several(ids: tuple[str, ...]) -> str:
    return " and ".join(ids) or "none"
