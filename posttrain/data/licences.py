"""What is known about licences and sources: the cards under `data/cards/`.

A summary for the cards of data sets and models, not legal advice; the text of a licence decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from posttrain.assets import asset_folder

Commercial = Literal["yes", "no", "conditions", "unknown"]

# The names that the hub has for licences, where they are not the SPDX id in small letters.
_HUB_NAMES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl"}
_HUB_LICENCES = {
    "apache-2.0",
    "mit",
    "odc-by",
    "odbl",
    "wtfpl",
    *("cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3"),
}

_IN_WORDS: dict[str, str] = {
    "yes": "allows commercial use",
    "no": "forbids commercial use",
    "conditions": "allows commercial use under conditions of its own",
    "unknown": "is unknown here: read it yourself before any use",
}


@dataclass(frozen=True, kw_only=True)
class Licence:
    """A licence. `commercial` says whether it allows commercial use; each obligation is one sentence.

    `share_alike`: what is adapted from the data has to be published under the same licence.
    """

    id: str
    name: str
    commercial: Commercial
    url: str | None = None
    share_alike: bool = False
    obligations: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there is a card of it."""
        return self.commercial != "unknown"

    @property
    def forbids_commercial_use(self) -> bool:
        """Whether it forbids commercial use; False also where nothing is known of it."""
        return self.commercial == "no"

    @property
    def in_words(self) -> str:
        """Say in one sentence what it allows, with its name."""
        return f"{self.name} {_IN_WORDS[self.commercial]}."


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of a source with a licence of its own. `note` says where that is not simply what its publisher states.

    `rows` is how rows name it, `matches` the part of that name by which it is told, see `normalised_name`.
    """

    name: str
    title: str
    rows: str
    matches: str
    license: str
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceCard:
    """A source: its title, where it is, whom to name, and what to mind beyond the text of its licence.

    `license` is None where it differs from release to release.
    """

    name: str
    title: str
    url: str
    license: str | None
    attribution: str
    obligations: tuple[str, ...] = ()
    subsets: tuple[Subset, ...] = ()

    @property
    def non_commercial_subsets(self) -> tuple[Subset, ...]:
        """The subsets whose licence forbids commercial use."""
        return tuple(subset for subset in self.subsets if licence(subset.license).forbids_commercial_use)

    def subset(self, name: str) -> Subset | None:
        """Return the subset that a row's own name of it, such as `ai2-adapt-dev/flan_v2_converted`, belongs to."""
        named = normalised_name(name)
        return next((subset for subset in self.subsets if normalised_name(subset.matches) in named), None)


def normalised_name(name: str) -> str:
    """Return a subset's name without its owner and without case, blanks, `-` and `_`."""
    return "".join(letter for letter in name.rpartition("/")[2].casefold() if letter not in " -_")


def licence(id: str | None) -> Licence:
    """Return what is known of a licence by its SPDX id, or the name that the hub has for it; case does not matter.

    Of an unknown one, `commercial` is `unknown`; of None, that no licence was stated.
    """
    stated = (id or "").strip()
    if found := _licences().get(stated.casefold()):
        return found
    return Licence(
        id=stated or "unknown",
        name=stated or "A licence that was not stated",
        commercial="unknown",
        obligations=("Find out the terms and read them yourself.",),
    )


def hub_names(ids: Iterable[str | None]) -> list[str]:
    """Return licences under the hub's names, in order; none at all where the hub has no name for one of them."""
    stated = (licence(id).id.lower() for id in ids)
    names = sorted({_HUB_NAMES.get(name, name) for name in stated})
    return names if _HUB_LICENCES.issuperset(names) else []


def card(source: str) -> SourceCard | None:
    """Return what is known about a source by its name in a recipe, None of those without a card."""
    return _cards().get(source)


@cache
def _licences() -> dict[str, Licence]:
    found = {}
    for id, entry in _load("licences").items():
        aliases = entry.pop("aliases", [])
        known = Licence(id=id, **{**entry, "obligations": tuple(entry["obligations"])})
        found.update({name.casefold(): known for name in (id, *aliases)})
    return found


@cache
def _cards() -> dict[str, SourceCard]:
    names = sorted(file.stem for file in (asset_folder("data") / "cards").glob("*.yaml") if file.stem != "licences")
    return {name: _card(name, _load(name)) for name in names}


def _card(name: str, entry: dict[str, Any]) -> SourceCard:
    subsets = tuple(Subset(**subset) for subset in entry.pop("subsets", []))
    return SourceCard(name=name, **{**entry, "obligations": tuple(entry["obligations"])}, subsets=subsets)


def _load(name: str) -> dict[str, Any]:
    import yaml

    loaded: dict[str, Any] = yaml.safe_load((asset_folder("data") / "cards" / f"{name}.yaml").read_text("utf-8"))
    return loaded
