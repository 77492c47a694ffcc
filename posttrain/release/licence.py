"""Under which licence a release is published, and the texts that have to go with it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import asset_folder, is_hub_id, locate
from posttrain.data.licences import licence
from posttrain.errors import UserError
from posttrain.release.licence_text import text_file
from posttrain.release.limits import TEXT, read_text, size_problem

if TYPE_CHECKING:
    from posttrain.recipe.schema import Recipe

NOTICE = "NOTICE"
LICENSE = "LICENSE"
_PACKAGED = "licences"  # under data/
# What section 1.b.iii of the licences of Meta asks to be in a text file called Notice, by the hub's name of each.
_LLAMA_NOTICES = {
    "llama2": "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All Rights "
    "Reserved.",
    "llama3": "Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright © Meta Platforms, Inc. All "
    "Rights Reserved.",
    **{
        f"llama{version}": f"Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta "
        "Platforms, Inc. All Rights Reserved."
        for version in ("3.1", "3.2", "3.3")
    },
}
_BUILT = {"llama3": "Built with Meta Llama 3", "llama3.1": "Built with Llama", "llama3.2": "Built with Llama"}
_BUILT["llama3.3"] = _BUILT["llama3.1"]
_NAME_OF_TEXT = re.compile(r"(licen[cs]e|copying|notice|use_policy|acceptable_use)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A release's licence.

    Attributes:
        id: As the recipe has it, or the base model's card.
        base: The ids on the card in the base model's folder; empty where there is none.
        reason: Why it is not the base's.
        packaged: The text that the package has of it, or None.
        given: The text files that the recipe names.
    """

    id: str
    base: tuple[str, ...]
    reason: str | None
    packaged: Path | None
    given: tuple[Path, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the texts in the release folder."""
        names = [path.name for path in self.given]
        if self.packaged is not None and LICENSE not in names:
            names.insert(0, LICENSE)
        return (*names, *([NOTICE] if self.notice is not None and NOTICE not in names else []))

    @property
    def notice(self) -> str | None:
        """The text of the notice that the licence asks for, or None."""
        lines = [_BUILT.get(_key(self.id)), _LLAMA_NOTICES.get(_key(self.id))]
        text = "\n".join(line for line in lines if line is not None)
        return f"{text}\n" if text else None

    def write(self, folder: Path) -> None:
        """Put the texts into a release folder."""
        for path in self.given:
            shutil.copyfile(path, folder / path.name)
        if self.packaged is not None and not (folder / LICENSE).exists():
            shutil.copyfile(self.packaged, folder / LICENSE)
        if self.notice is not None and not (folder / NOTICE).exists():
            (folder / NOTICE).write_text(self.notice, encoding="utf-8")


def _key(id: str) -> str:
    return licence(id).id.casefold().replace("llama-", "llama")


def base_folder(recipe: Recipe) -> Path | None:
    """Return the folder of the base model where the recipe names one and no repository of the hub."""
    base = recipe.model.base
    if base is None or is_hub_id(base, bare=True):
        return None
    return Path(locate(base)).expanduser()


def base_licences(recipe: Recipe) -> tuple[str, ...]:
    """Return the licence ids on the card in the folder of the base model.

    Raises:
        UserError: The card cannot be read, or is larger than a card can be.
    """
    folder = base_folder(recipe)
    if folder is None or not (folder / "README.md").exists():
        return ()
    import yaml

    text = read_text(folder / "README.md", f"{recipe.model.base}/README.md")
    if not text.startswith("---"):
        return ()
    try:
        head = yaml.safe_load(text.removeprefix("---").split("\n---", 1)[0])
    except yaml.YAMLError:
        return ()
    stated: Any = head.get("license") if isinstance(head, dict) else None
    ids = stated if isinstance(stated, list) else [stated]
    return tuple(str(id) for id in ids if id is not None)


def terms(recipe: Recipe) -> Terms:
    """Return the licence that a recipe releases under.

    Raises:
        UserError: None is stated, its text is missing, or it is not the base's and nobody says why.
    """
    release = recipe.release
    assert release is not None
    base = base_licences(recipe)
    id = release.license or (base[0] if len(base) == 1 else None)
    if id is None:
        where = (
            f"the card of {recipe.model.base} states {', '.join(base)}" if base else "no card of the base says which"
        )
        raise UserError(
            f"release.license: under which licence are the weights published? {where}; give an SPDX id such as "
            "Apache-2.0, or the hub's name, such as llama3.1"
        )
    given = _given(release.license_files)
    packaged = asset_folder("data") / _PACKAGED / f"{licence(id).id}.txt"
    found = Terms(
        id=id,
        base=base,
        reason=release.license_reason,
        packaged=packaged if packaged.is_file() else None,
        given=given,
    )
    if problems := _problems(found):
        raise UserError(problems)
    return found


def _given(license_files: Sequence[str]) -> tuple[Path, ...]:
    found, problems = [], []
    for written in license_files:
        try:
            found.append(text_file(written))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return tuple(found)


def _problems(found: Terms) -> list[str]:
    problems = []
    names = [path.name for path in found.given]
    for path in found.given:
        if not path.exists():
            continue  # said elsewhere, with the other files that the recipe names
        if not _NAME_OF_TEXT.search(path.name) or path.suffix.lower() not in ("", ".txt", ".md"):
            problems.append(
                f"release.license_files: {path.name} does not look like the text of a licence; the file is published "
                "under its own name, such as LICENSE.txt, NOTICE or USE_POLICY.md"
            )
        elif problem := size_problem(path.resolve(), path.name, TEXT):
            problems.append(f"release.license_files: {problem}")
    problems += [
        f"release.license_files: two files are called {name}" for name in sorted(set(names)) if names.count(name) > 1
    ]
    known = licence(found.id)
    has_text = found.packaged is not None or any("notice" not in name.lower() for name in names)
    if not has_text:
        where = f" ({known.url})" if known.url else ""
        problems.append(
            f"release.license_files: the text of {known.name}{where} goes with the weights, and the package has "
            "none of it; name the file"
        )
    base = {licence(id).id for id in found.base}
    if base and known.id not in base and found.reason is None:
        problems.append(
            f"release.license: {found.id} is not the licence of the base model ({', '.join(found.base)}); say in "
            "release.license_reason why it may be"
        )
    return problems
