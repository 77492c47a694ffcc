"""Which rows are sampled and which are held out, decided by hashes of the seed and the row, never by its position."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from posttrain.data.rows import PreferenceRow, Row
from posttrain.data.sources.base import Source
from posttrain.recipe.schema import Validation


def ordinal(seed: int, *parts: object) -> bytes:
    """Return 16 bytes to sort by: a seeded random order that depends on nothing but the parts."""
    return hashlib.sha256("\0".join(str(part) for part in (seed, *parts)).encode()).digest()[:16]


def sample(ids: Sequence[str], options: Source, seed: int) -> list[tuple[str, int]]:
    """Return the ids that `fraction`, `max_rows` or `repeat` takes of a source, each with how often, in no order.

    Args:
        ids: The ids of the source's rows, each once.
        options: The recipe's entry; with none of the three every row is taken once.
        seed: The recipe's seed; a larger sample contains the smaller ones of the same seed.
    """
    shuffled = sorted(ids, key=lambda name: ordinal(seed, "sample", name))
    if options.fraction is not None:
        shuffled = shuffled[: round(options.fraction * len(ids))]
    elif options.max_rows is not None:
        shuffled = shuffled[: options.max_rows]
    elif options.repeat is not None:
        whole = math.floor(options.repeat)
        once_more = round((options.repeat - whole) * len(ids))
        return [(name, whole + (rank < once_more)) for rank, name in enumerate(shuffled)]
    return [(name, 1) for name in shuffled]


def normalised(text: str) -> str:
    """Return a text without differences of case, blanks and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_keys(row: Row) -> tuple[str, ...]:
    """Return what ties a row to others: its conversation tree, where it has one, and its first user prompt.

    Rows that share a key, directly or through other rows, are on one side of the validation split.
    """
    messages = row.prompt if isinstance(row, PreferenceRow) else row.messages
    first = next(message["content"] for message in messages if message["role"] == "user")
    keys = [f"prompt:{hashlib.sha256(normalised(first).encode()).hexdigest()[:32]}"]
    tree = json.loads(row.meta).get("tree")
    return (f"tree:{tree}", *keys) if tree else tuple(keys)


class Groups:
    """Rows joined by shared keys, by union and find; a group is named by its least key, whatever the order."""

    def __init__(self, keys: Iterable[Sequence[str]]) -> None:
        self._parent: dict[str, str] = {}
        for row_keys in keys:
            for key in row_keys:
                self._join(row_keys[0], key)

    def _find(self, key: str) -> str:
        root = key
        while (above := self._parent.setdefault(root, root)) != root:
            root = above
        while key != root:
            self._parent[key], key = root, self._parent[key]
        return root

    def _join(self, one: str, other: str) -> None:
        low, high = sorted((self._find(one), self._find(other)))
        self._parent[high] = low

    def of(self, keys: Sequence[str]) -> str:
        """Return the group of a row by its keys."""
        return self._find(keys[0])


@dataclass(frozen=True)
class HeldOut:
    """The groups of one set that go to validation, and those left out because another set holds them out."""

    validation: frozenset[str]
    excluded: frozenset[str]


def hold_out(sets: Mapping[str, Sequence[str]], validation: Validation, seed: int) -> dict[str, HeldOut]:
    """Choose the groups to hold out of each set, so that no set trains on a group that another validates on.

    Each set takes whole groups in seeded order up to its share of rows, one group at least where it has several.
    What the other sets hold out goes to its validation too as far as `max_rows` allows, and is excluded beyond that.

    Args:
        sets: The group of each row, by set.
        validation: The share of rows to hold out, and the most of a set.
        seed: The recipe's seed.
    """
    sizes = {name: Counter(groups) for name, groups in sets.items()}
    own = {name: _own(size, validation, seed) for name, size in sizes.items()}
    union = sorted(set().union(*own.values()), key=lambda group: ordinal(seed, "validation", group))
    held = {}
    for name, size in sizes.items():
        taken = set(own[name])
        rows = sum(size[group] for group in taken)
        excluded = set()
        for group in union:
            if group in taken or group not in size:
                continue
            if rows + size[group] <= validation.max_rows:
                taken.add(group)
                rows += size[group]
            else:
                excluded.add(group)
        held[name] = HeldOut(frozenset(taken), frozenset(excluded))
    return held


def _own(size: Counter[str], validation: Validation, seed: int) -> set[str]:
    total = sum(size.values())
    if validation.fraction <= 0 or len(size) < 2:
        return set()
    target = min(validation.max_rows, max(1, round(total * validation.fraction)))
    order = sorted(size, key=lambda group: ordinal(seed, "validation", group))
    taken: set[str] = set()
    rows = 0
    for group in order:
        if rows + size[group] <= target:
            taken.add(group)
            rows += size[group]
    if not taken:
        smallest = min(order, key=lambda group: size[group])
        taken = {smallest} if size[smallest] <= validation.max_rows else taken
    return taken
