"""What a card says of licences: the names that the hub has for them, what they ask for, and which is newer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from posttrain.data.licences import Licence, hub_names, licence
from posttrain.release.card.inputs import CardInputs
from posttrain.release.card.text import plain

# Licences of Meta that ask for words on the page and at the head of the name (section 1.b.i of each).
BUILT_WITH = {
    "llama3": "Built with Meta Llama 3",
    "llama3.1": "Built with Llama",
    "llama3.2": "Built with Llama",
    "llama3.3": "Built with Llama",
}
NAME_BEGINS = {"llama3": "Llama 3", "llama3.1": "Llama", "llama3.2": "Llama", "llama3.3": "Llama"}
OTHER = "see-the-card"
_VERSION = re.compile(r"(?P<kind>.*?)-?(?P<version>\d+(?:\.\d+)*)")


def known(ids: Iterable[str]) -> list[Licence]:
    """Return what is known of each licence, those of which nothing is known too."""
    return [licence(id) for id in ids]


def metadata(inputs: CardInputs) -> dict[str, Any]:
    """Return the keys of a card's metadata that say its licence.

    Licences that ask to be named in full get their name and the address of their text beside the hub's id.
    """
    ids = inputs.license.ids
    names = hub_names(ids)
    link = (
        inputs.license.files[0] if inputs.license.files else next((each.url for each in known(ids) if each.url), None)
    )
    if not names:
        return {"license": "other", "license_name": _slug(" and ".join(ids)) or OTHER, "license_link": link}
    found: dict[str, Any] = {"license": names[0] if len(names) == 1 else names}
    if len(ids) == 1 and ids[0].lower() in BUILT_WITH:
        found |= {"license_name": _slug(known(ids)[0].name), "license_link": link}
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def marks(ids: Sequence[str]) -> list[str]:
    """Return the words that the licences want shown, such as `Built with Llama`."""
    return list(dict.fromkeys(BUILT_WITH[id.lower()] for id in ids if id.lower() in BUILT_WITH))


def newer(id: str, base: str) -> bool:
    """Say whether a licence is a later version of another one."""
    one, other = _VERSION.fullmatch(licence(id).id.lower()), _VERSION.fullmatch(licence(base).id.lower())
    if one is None or other is None or one["kind"] != other["kind"]:
        return False
    return _numbers(one["version"]) > _numbers(other["version"])


def same(ids: Iterable[str], others: Iterable[str]) -> bool:
    """Say whether two lists name the same licences."""
    return {licence(id).id for id in ids} == {licence(id).id for id in others}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def section(inputs: CardInputs) -> dict[str, Any]:
    """Return what the section of a card on its licence says."""
    stated = inputs.license
    obligations = [obligation for each in known(stated.ids) for obligation in each.obligations]
    return {
        "licences": [(plain(each.name), each.url, each.known) for each in known(stated.ids)],
        "marks": marks(stated.ids),
        "obligations": [plain(text) for text in dict.fromkeys(obligations)],
        "files": stated.files,
        "base": [plain(each.name) for each in known(stated.base)] if stated.base else [],
        "differs": bool(stated.base) and not same(stated.ids, stated.base),
        "reason": plain(stated.reason) if stated.reason else None,
    }
