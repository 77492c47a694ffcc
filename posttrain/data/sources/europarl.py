"""Europarl: aligned passages of two languages, made into requests for a translation.

The hub's form is `{"translation": {"en": ..., "fi": ...}}`; a Moses release is two files with a line a passage, which
the reader turns into the same records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.assets import locate
from posttrain.data.files import is_hub_id
from posttrain.data.rows import SEVERAL_LANGUAGES, BadRow, Refused, SftRow, sft_row, turn
from posttrain.data.sources import phrasings
from posttrain.data.sources.base import Record, Source, SourceKind, StepName
from posttrain.data.sources.fields import row_license
from posttrain.data.steps.identifier import check_installed, identify
from posttrain.errors import UserError

LICENSE = "LicenseRef-Europarl"
JUDGED_LETTERS = 20  # the language of a text with fewer letters is taken on trust
CROP = 400  # characters of a text by which its language is judged


@dataclass(frozen=True, kw_only=True)
class Europarl(Source):
    """Passages of the languages of `pair`, asked for in phrasings drawn by `phrasing_seed` and the passage.

    `directions: both` makes two rows of a pair, `alternate` one, its direction drawn; `en-fi` asks for Finnish only.
    A pair stays where each side has `min_chars` to `max_chars` characters, the longer at most `max_length_ratio`
    times the shorter, and, with `check_language`, each side is in its language.

    `path` of a Moses release is one of its two files, what both names begin with (`europarl-v7.fi-en`), or a folder
    that holds one such pair.
    """

    pair: str = "en-fi"
    directions: str = "both"
    min_chars: int = 20
    max_chars: int = 2000
    max_length_ratio: float = 2.0
    check_language: bool = True
    phrasing_seed: int = 42
    # Short passages under one phrasing are nearly the same prompt, and meant to be.
    skip: list[StepName] = field(default_factory=lambda: ["near_duplicates", "semantic_duplicates"])

    def __post_init__(self) -> None:
        if self.config is None and is_hub_id(self.path):  # the hub has a configuration a pair, in alphabetical order
            object.__setattr__(self, "config", "-".join(sorted(self.pair.split("-"))))

    @property
    def languages(self) -> list[str]:
        """None: rows are in several languages, which the pair names."""
        return []

    @property
    def sides(self) -> tuple[str, str]:
        """The two languages."""
        one, _, other = self.pair.partition("-")
        return one, other

    @property
    def aligned_files(self) -> dict[str, Path] | None:
        """The two files of a Moses release by language, where `path` names one.

        Raises:
            UserError: A file of the two is missing, or a folder holds several pairs.
        """
        if is_hub_id(self.path):
            return None
        path = Path(locate(self.path)).expanduser()
        if path.is_dir():
            return self._in_folder(path)
        if path.name.endswith(tuple(f".{side}{end}" for side in self.sides for end in ("", ".gz"))):
            stem = path.with_name(path.name.removesuffix(".gz")).with_suffix("")
        elif path.exists():
            return None
        else:
            stem = path
        found = {side: _aligned(stem, side) for side in self.sides}
        missing = [f"{stem.name}.{side}" for side, file in found.items() if file is None]
        if len(missing) == 1:
            raise UserError(f"{self.path}: beside it there is no {missing[0]}; an aligned text needs both languages")
        return {side: file for side, file in found.items() if file is not None} or None

    def _in_folder(self, folder: Path) -> dict[str, Path] | None:
        one, other = self.sides
        pairs = [
            {one: file, other: partner}
            for file in sorted(folder.iterdir())
            if file.name.endswith((f".{one}", f".{one}.gz"))
            and (partner := _aligned(file.with_name(file.name.removesuffix(".gz")).with_suffix(""), other))
        ]
        if len(pairs) > 1:
            names = ", ".join(pair[one].name for pair in pairs)
            raise UserError(f"{self.path}: holds several aligned texts ({names}); give the path of one")
        return pairs[0] if pairs else None


def _aligned(stem: Path, side: str) -> Path | None:
    files = (stem.with_name(f"{stem.name}.{side}{end}") for end in ("", ".gz"))
    return next((file for file in files if file.is_file()), None)


def check(options: Europarl) -> list[str]:
    """Find pairs without phrasings, directions that are not of the pair, and lengths that no passage has."""
    one, other = options.sides
    problems = []
    if one == other or {one, other} - phrasings.NAMES.keys():
        known = ", ".join(phrasings.NAMES)
        problems.append(f"pair: {options.pair!r} is not two of {known}, joined by a hyphen")
    allowed = ("both", "alternate", f"{one}-{other}", f"{other}-{one}")
    if options.directions not in allowed:
        problems.append(f"directions: {options.directions!r} is not one of {', '.join(allowed)}")
    if not 1 <= options.min_chars <= options.max_chars:
        problems.append(f"min_chars: {options.min_chars} is not between 1 and max_chars, {options.max_chars}")
    if not options.max_length_ratio >= 1:
        problems.append(f"max_length_ratio: {options.max_length_ratio:g} is less than 1")
    if options.language is not None:
        problems.append("language: leave it out; pair names the languages")
    return problems


def prepare(options: Europarl, first: Sequence[Record]) -> Europarl:
    """Check that languages can be identified, where they are to be.

    Raises:
        UserError: heliport is not installed.
    """
    if options.check_language:
        check_installed(options.path, "set check_language: false")
    return options


def _check_language(text: str, language: str) -> None:
    cropped = text[:CROP]
    if sum(map(str.isalpha, cropped)) < JUDGED_LETTERS:
        return
    found = identify(" ".join(cropped.split()), (language,))
    if found is not None and found != language:
        raise BadRow(f"side in another language: {language} is taken for {found}")


def _passages(record: Record, options: Europarl) -> dict[str, str]:
    """Return the two sides of a pair that is fit to learn from."""
    translation = record.get("translation")
    if not isinstance(translation, dict):
        raise BadRow("missing column: translation")
    sides = {}
    for side in options.sides:
        if side not in translation:
            raise BadRow(f"missing language: {side}")
        sides[side] = turn("user", translation[side])["content"].strip()
    one, other = sides.values()
    shorter, longer = sorted((len(one), len(other)))
    if shorter < options.min_chars:
        raise BadRow(f"shorter than min_chars: {shorter}")
    if longer > options.max_chars:
        raise BadRow(f"longer than max_chars: {longer}")
    if longer > options.max_length_ratio * shorter:
        raise BadRow(f"length ratio above max_length_ratio: {longer / shorter:.2f}")
    if one.casefold() == other.casefold():
        raise BadRow("both sides say the same")
    if options.check_language:
        for side, text in sides.items():
            _check_language(text, side)
    return sides


def _directions(options: Europarl, drawn: int) -> list[tuple[str, str]]:
    one, other = options.sides
    both = [(one, other), (other, one)]
    if options.directions == "both":
        return both
    if options.directions == "alternate":
        return [both[drawn % 2]]
    return [direction for direction in both if "-".join(direction) == options.directions]


def _rows(record: Record, options: Europarl, unit: int) -> list[SftRow]:
    sides = _passages(record, options)
    texts = "\0".join(f"{side}\0{sides[side]}" for side in sorted(sides))
    digest = hashlib.sha256(f"{options.phrasing_seed}\0{texts}".encode()).digest()
    tree = hashlib.sha256(texts.encode()).hexdigest()[:32]
    rows = []
    for source, target in _directions(options, digest[0]):
        place = 1 if source < target else 9  # each direction draws from bytes of its own
        choice = int.from_bytes(digest[place : place + 8], "big") % phrasings.COUNT
        question, phrasing = phrasings.ask(choice, source, target, sides[source])
        rows.append(
            sft_row(
                [turn("user", question), turn("assistant", sides[target])],
                source=options.label,
                language=SEVERAL_LANGUAGES,
                license=row_license(options, record, LICENSE),
                meta={"from": source, "to": target, "phrasing": phrasing, "tree": tree, "row": unit},
                units=(unit,),
            )
        )
    return rows


def to_sft(records: Iterable[Record], options: Europarl, start: int) -> Iterator[SftRow | Refused]:
    """Convert pairs to SFT rows, one a direction; `meta.tree` is the same for both directions of a pair."""
    for unit, record in enumerate(records, start):
        try:
            yield from _rows(record, options, unit)
        except BadRow as bad:
            yield Refused(record, str(bad), unit)


KIND = SourceKind(name="europarl", options=Europarl, to_sft=to_sft, license=LICENSE, prepare=prepare, check_own=check)
