"""Licences of the rows and of the base model, and whether they go together. A summary, not legal advice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.data.licences import Licence, card, licence, normalised_name
from posttrain.preflight.findings import Finding, note, warning

if TYPE_CHECKING:
    from posttrain.data.sources.base import Source
    from posttrain.preflight.subject import Subject


@dataclass(frozen=True)
class _Part:
    """Rows under one licence: the key of their entry, what they are called, and the licence."""

    key: str
    name: str
    licence: Licence


def check(subject: Subject) -> Iterator[Finding]:
    """Say which licences forbid commercial use, are not known, or ask that what is made from them is shared alike."""
    parts = [part for key, entry in _entries(subject) for part in _parts(key, entry)]
    base = _of_base(subject)
    parts += base
    forbid = [part for part in parts if part.licence.forbids_commercial_use]
    allow = [part for part in parts if not part.licence.forbids_commercial_use]
    for part in forbid:
        others = f", though {len(allow)} of {len(parts)} do not" if allow else ""
        yield warning(
            f"{part.key}: {part.name}: {part.licence.in_words.rstrip('.')}{others}; what is trained on it may not be "
            "used commercially either. Leave it out, or keep the model to research"
        )
    for part in parts:
        if not part.licence.known:
            yield warning(f"{part.key}: {part.name}: {_unknown(part.licence)}")
    alike = {part.licence.id: part for part in parts if part.licence.share_alike}
    for part in alike.values():
        rest = sorted({each.licence.id for each in parts if each.licence.id != part.licence.id})
        beside = f"; beside it are rows under {', '.join(rest)}" if rest else ""
        yield warning(
            f"{part.key}: {part.name}: {part.licence.name} asks that data adapted from it is published under the same "
            f"licence{beside}: mind it where the mixture itself is published"
        )
    conditions = sorted({part.licence.name for part in parts if part.licence.commercial == "conditions"})
    if conditions:
        yield note(f"licences that allow commercial use on conditions of their own: {'; '.join(conditions)}")
    if subject.base is not None and not base and subject.recipe.model.new is None:
        yield note(
            f"model.base: the licence of {subject.recipe.model.base} is not stated beside it; read its model card"
        )


def _unknown(found: Licence) -> str:
    if found.id == "unknown":
        return "no licence is stated; find out the terms, and give the entry `license`"
    return f"the licence {found.id} is not known here; read it yourself before any use"


def _entries(subject: Subject) -> Iterator[tuple[str, Source]]:
    from posttrain.data.sources import entry_options

    data = subject.recipe.data
    for name in ("sft", "preference"):
        for index, entry in enumerate(getattr(data, name)):
            options = entry_options(entry)
            if options.source != "generated":  # rows have the licence of what they were made from
                yield f"data.{name}.{index}", options
    for index, entry in enumerate(subject.recipe.generate):
        if entry.source is not None:
            yield f"generate.{index}.source", entry_options(entry.source)
    if subject.recipe.cpt is not None:
        for index, text in enumerate(subject.recipe.cpt.text):
            yield f"cpt.text.{index}", _Text(text)  # type: ignore[misc]


class _Text:
    """A text of `cpt` as an entry of data: no source of it has a card."""

    source = "text"

    def __init__(self, text: Any) -> None:
        self.label, self.license = text.path, text.license


def _parts(key: str, entry: Source) -> list[_Part]:
    """Return the rows of an entry by licence: those of its subsets that forbid commercial use apart."""
    from posttrain.data.sources import SOURCES

    known, kind = card(entry.source), SOURCES.get(entry.source)
    stated = entry.license or (kind.license if kind is not None else None) or (known.license if known else None)
    found = [_Part(key, entry.label, licence(stated))]
    if known is not None:
        dropped = {normalised_name(name) for name in getattr(entry, "drop_subsets", None) or ()}
        for subset in known.non_commercial_subsets:
            if dropped.isdisjoint({normalised_name(subset.name), normalised_name(subset.matches)}):
                found.append(_Part(key, f"{entry.label}, subset {subset.name}", licence(subset.license)))
    return found


def _of_base(subject: Subject) -> list[_Part]:
    """Return the licence of the base model as the card in its folder states it."""
    folder = subject.base_folder
    if folder is None or subject.recipe.model.new is not None or not (folder / "README.md").is_file():
        return []
    import yaml

    text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return []
    try:
        head = yaml.safe_load(text.removeprefix("---").split("\n---", 1)[0])
    except yaml.YAMLError:
        return []
    stated = head.get("license") if isinstance(head, dict) else None
    return [_Part("model.base", str(subject.recipe.model.base), licence(str(stated)))] if stated else []
