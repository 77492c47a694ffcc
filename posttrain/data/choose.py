"""Which rows of all parts stay: duplicates, samples and held-out rows, decided on their keys alone.

The keys of a row take 80 bytes in memory, whatever its length; the rows themselves stay on the disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.data.duplicates import first_occurrences
from posttrain.data.part import KEYS, Counts
from posttrain.data.progress import Advance
from posttrain.data.split import Groups, hold_out, sample
from posttrain.recipe.schema import Data, Validation
from posttrain.recipe.schema_data import SemanticDuplicates

if TYPE_CHECKING:
    import numpy

    from posttrain.data.sources import Source


class Fate(IntEnum):
    """What becomes of a row that its own part has kept."""

    TRAIN = 0
    VALIDATION = 1
    SAMPLED_OUT = 2
    DUPLICATE = 3
    NEAR_DUPLICATE = 4
    SEMANTIC_DUPLICATE = 5
    HELD_OUT_ELSEWHERE = 6


@dataclass(frozen=True)
class Part:
    """A part that is whole: its files, its entry, and the number of its first row in the set."""

    folder: Path
    entry: int
    first: int
    rows: int


@dataclass
class Pool:
    """All rows of one set, by number in the order of the recipe and the sources.

    Attributes:
        kind: The set.
        options: The entries of the recipe.
        parts: Where the rows are.
        keys: `KEYS`, a record a row; `language` and `license` are numbers into the two lists here.
        entry: The number of each row's entry.
        fate: A `Fate` each.
        of: For a duplicate the row that stays instead, else -1.
        similarity: How like that row it is, 1 for an exact duplicate.
        copies: How often a row is taken.
    """

    kind: str
    options: Sequence[Source]
    parts: list[Part]
    keys: numpy.ndarray
    entry: numpy.ndarray
    languages: list[str]
    licenses: list[str | None]
    fate: numpy.ndarray = field(init=False)
    of: numpy.ndarray = field(init=False)
    similarity: numpy.ndarray = field(init=False)
    copies: numpy.ndarray = field(init=False)

    def __post_init__(self) -> None:
        import numpy as np

        rows = len(self.keys)
        self.fate = np.zeros(rows, np.uint8)
        self.of = np.full(rows, -1, np.int64)
        self.similarity = np.zeros(rows, np.float32)
        self.copies = np.ones(rows, np.int64)

    def entry_rows(self, entry: int) -> slice:
        """Return the rows of an entry, which lie side by side."""
        import numpy as np

        first, last = np.searchsorted(self.entry, [entry, entry + 1])
        return slice(int(first), int(last))


def pool(kind: str, options: Sequence[Source], parts: Sequence[tuple[int, Path, Counts]]) -> Pool:
    """Load the keys of all parts of a set: entry, folder and counts of each, in order."""
    import numpy as np

    found: list[Part] = []
    keys, entries = [np.zeros(0, KEYS)], [np.zeros(0, np.uint16)]
    languages: dict[Any, int] = {}
    licenses: dict[Any, int] = {}
    first = 0
    for entry, folder, counts in parts:
        own = np.load(folder / "keys.npy")
        assert len(own) == counts.kept, f"{folder}: {len(own)} keys of {counts.kept} rows"
        for name, known, here in (("language", languages, counts.languages), ("license", licenses, counts.licenses)):
            codes = [known.setdefault(value, len(known)) for value in here]
            own[name] = np.array(codes, np.uint16)[own[name]] if codes else own[name]
        found.append(Part(folder, entry, first, len(own)))
        keys.append(own)
        entries.append(np.full(len(own), entry, np.uint16))
        first += len(own)
    return Pool(kind, options, found, np.concatenate(keys), np.concatenate(entries), list(languages), list(licenses))


def choose(pools: Sequence[Pool], data: Data, seed: int, work: Path, advance: Advance | None = None) -> None:
    """Decide the fate of every row of every set; `advance` is told of what takes long."""
    for each in pools:
        _exact(each)
        near = data.duplicates.near
        if near is not None and each.kind in near.sets:
            _near(each, data, work)
        semantic = data.duplicates.semantic
        if semantic is not None and each.kind in semantic.sets:
            _semantic(each, semantic, work, advance)
        _sample(each, seed)
    _split(pools, data.validation, seed)


def _exact(rows: Pool) -> None:
    import numpy as np

    # One check serves both: rows of equal content have equal normalised text.
    first = first_occurrences(rows.keys["text"])
    again = first != np.arange(len(first))
    rows.fate[again] = Fate.DUPLICATE
    rows.of[again] = first[again]
    rows.similarity[again] = 1.0


def _near(rows: Pool, data: Data, work: Path) -> None:
    import numpy as np

    from posttrain.data.minhash import near_duplicates

    options = data.duplicates.near
    assert options is not None
    eligible = np.zeros(len(rows.keys), bool)
    path = work / f"signatures-{rows.kind}.bin"
    with path.open("wb") as out:
        for part in rows.parts:
            own = part.folder / "signatures.npy"
            here = slice(part.first, part.first + part.rows)
            if own.exists():
                eligible[here] = rows.fate[here] == Fate.TRAIN
                out.write(np.load(own).tobytes())
            else:
                out.write(bytes(4 * options.permutations * part.rows))
    if not eligible.any():
        path.unlink()
        return
    shape = (len(rows.keys), options.permutations)
    signatures = np.memmap(path, np.uint32, "r", shape=shape)
    found = near_duplicates(signatures, eligible, _trees(rows), options)
    rows.fate[found.removed] = Fate.NEAR_DUPLICATE
    rows.of[found.removed] = found.kept
    rows.similarity[found.removed] = found.similarity
    del signatures
    path.unlink()


def _trees(rows: Pool) -> numpy.ndarray:
    """Return the number of each row's conversation tree, -1 where it is of none."""
    import numpy as np

    trees, groups = np.unique(rows.keys["tree"], return_inverse=True)
    return np.where(trees[groups] == b"", -1, groups)


def _semantic(rows: Pool, options: SemanticDuplicates, work: Path, advance: Advance | None) -> None:
    import numpy as np

    from posttrain.data.embeddings import embed
    from posttrain.data.semantic import first_prompts, semantic_duplicates

    taking_part = [
        "semantic_duplicates" not in entry.skip and (not options.sources or entry.label in options.sources)
        for entry in rows.options
    ]
    eligible = (rows.fate == Fate.TRAIN) & np.array(taking_part, bool)[rows.entry]
    numbers = np.flatnonzero(eligible)
    prompts = [
        prompt for part in rows.parts for prompt in first_prompts(rows.kind, part.folder, _within(part, eligible))
    ]
    vectors = embed(prompts, options, work=work, advance=advance)
    # Only the rows that take part have vectors.
    found = semantic_duplicates(vectors, np.ones(len(numbers), bool), _trees(rows)[numbers], options)
    removed = numbers[found.removed]
    rows.fate[removed] = Fate.SEMANTIC_DUPLICATE
    rows.of[removed] = numbers[found.kept]
    rows.similarity[removed] = found.similarity


def _within(part: Part, eligible: numpy.ndarray) -> numpy.ndarray:
    """Return which rows of a part are eligible, by their place in it."""
    import numpy as np

    return np.flatnonzero(eligible[part.first : part.first + part.rows])


def _sample(rows: Pool, seed: int) -> None:
    import numpy as np

    for number, options in enumerate(rows.options):
        here = rows.entry_rows(number)
        stay = np.flatnonzero(rows.fate[here] == Fate.TRAIN) + here.start
        copies = sample(rows.keys["id"][stay].tolist(), options, seed)
        rows.copies[stay] = copies
        rows.fate[stay[copies == 0]] = Fate.SAMPLED_OUT


def _split(pools: Sequence[Pool], validation: Validation, seed: int) -> None:
    import numpy as np

    taken = [np.flatnonzero(rows.fate == Fate.TRAIN) for rows in pools]
    keys = [rows.keys[some] for rows, some in zip(pools, taken, strict=True)]
    groups = Groups.of(*(np.concatenate([own[name] for own in keys]) for name in ("prompt", "tree")))
    ends = np.cumsum([len(some) for some in taken])[:-1]
    by_set = dict(zip((rows.kind for rows in pools), np.split(groups.of_row, ends), strict=True))
    held = hold_out(by_set, groups.names, validation, seed)
    for rows, some in zip(pools, taken, strict=True):
        own = held[rows.kind]
        here = by_set[rows.kind]
        rows.fate[some[np.isin(here, list(own.validation))]] = Fate.VALIDATION
        rows.fate[some[np.isin(here, list(own.excluded))]] = Fate.HELD_OUT_ELSEWHERE
        rows.copies[rows.fate != Fate.TRAIN] = 0
        rows.copies[rows.fate == Fate.VALIDATION] = 1
