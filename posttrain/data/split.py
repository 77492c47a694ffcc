"""Which rows are sampled and which are held out, decided by hashes of the seed and the row, never by its position."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from posttrain.data.rows import PreferenceRow, Row
from posttrain.data.sources.base import Source
from posttrain.recipe.schema import Validation

if TYPE_CHECKING:
    import numpy


def sample(ids: Sequence[bytes], options: Source, seed: int) -> numpy.ndarray:
    """Return how often `fraction`, `max_rows` or `repeat` takes each row of a source, int64.

    Args:
        ids: The ids of the source's rows, each once.
        options: The recipe's entry; with none of the three every row is taken once.
        seed: The recipe's seed; a larger sample contains the smaller ones of the same seed.
    """
    import numpy as np

    rows = len(ids)
    copies = np.ones(rows, np.int64)
    if options.fraction is None and options.max_rows is None and options.repeat is None:
        return copies
    rank = np.empty(rows, np.int64)
    rank[np.argsort(ordinals(seed, "sample", ids), kind="stable")] = np.arange(rows)
    if options.fraction is not None:
        copies[rank >= round(options.fraction * rows)] = 0
    elif options.max_rows is not None:
        copies[rank >= options.max_rows] = 0
    elif options.repeat is not None:
        whole = math.floor(options.repeat)
        copies[:] = whole + (rank < round((options.repeat - whole) * rows))
    return copies


def ordinals(
    seed: int, name: str, digests: Iterable[bytes], *, prefix: str = "", copies: Iterable[int] | None = None
) -> numpy.ndarray:
    """Return 16 bytes for each digest to sort by: a seeded random order that depends on nothing but the arguments.

    Args:
        seed: The recipe's seed.
        name: What is put in order; two names give two orders.
        digests: 16 bytes each, taken as `hex_id` writes them.
        prefix: What stands before the hex digits.
        copies: Number of the copy, for each digest, where one may come several times.

    Returns:
        `S16`, shape [digests]: the beginning of a SHA-256.
    """
    import numpy as np

    start = hashlib.sha256(f"{seed}\0{name}\0{prefix}".encode())
    tails = (hex_id(digest) for digest in digests)
    if copies is not None:
        tails = (f"{tail}\0{copy}" for tail, copy in zip(tails, copies, strict=True))
    found = []
    for tail in tails:
        own = start.copy()
        own.update(tail.encode())
        found.append(own.digest()[:16])
    return np.array(found, "S16")


def hex_id(digest: bytes) -> str:
    """Write 16 bytes in hex. numpy takes NULs at the end off, which here belong to them."""
    return digest.ljust(16, b"\0").hex()


@lru_cache(maxsize=16)  # one key of a row after another asks for the same turns
def normalised(text: str) -> str:
    """Return a text without differences of case, blanks and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_key(row: Row) -> bytes:
    """Return 16 bytes that rows with the same first user prompt share."""
    messages = row.prompt if isinstance(row, PreferenceRow) else row.messages
    first = next(message["content"] for message in messages if message["role"] == "user")
    return hashlib.sha256(normalised(first).encode()).digest()[:16]


def tree_key(row: Row) -> bytes:
    """Return 16 bytes that rows of one conversation tree share, or nothing for a row of none."""
    tree = json.loads(row.meta).get("tree") if '"tree"' in row.meta else None
    return hashlib.sha256(str(tree).encode()).digest()[:16] if tree else b""


@dataclass(frozen=True)
class Groups:
    """Rows that share a prompt or a tree, directly or through other rows, by number; `names` is a key of each."""

    of_row: numpy.ndarray
    names: numpy.ndarray

    @classmethod
    def of(cls, prompts: numpy.ndarray, trees: numpy.ndarray) -> Groups:
        """Join rows by `prompt_key` and `tree_key`, `S16` each. A group is named by its least prompt key."""
        import numpy as np

        names, code = np.unique(prompts, return_inverse=True)
        above = np.arange(len(names))

        def root(at: int) -> int:
            while above[at] != at:
                above[at] = above[above[at]]
                at = above[at]
            return at

        first: dict[bytes, int] = {}
        for row in np.flatnonzero(trees != b""):
            low, high = sorted((root(first.setdefault(trees[row], code[row])), root(code[row])))
            above[high] = low
        for at in np.flatnonzero(above != np.arange(len(names))):
            above[at] = root(at)
        return cls(above[code], names)


@dataclass(frozen=True)
class HeldOut:
    """The groups of one set that go to validation, and those left out because another set holds them out."""

    validation: frozenset[int]
    excluded: frozenset[int]


def hold_out(
    sets: Mapping[str, numpy.ndarray], names: numpy.ndarray, validation: Validation, seed: int
) -> dict[str, HeldOut]:
    """Choose the groups to hold out of each set, so that no set trains on a group that another validates on.

    Each set takes whole groups in seeded order up to its share of rows, one group at least where it has several.
    What the other sets hold out goes to its validation too as far as `max_rows` allows, and is excluded beyond that.

    Args:
        sets: The number of the group of each row, by set.
        names: The name of each group, from which its place in the order follows.
        validation: The share of rows to hold out, and the most of a set.
        seed: The recipe's seed.
    """
    import numpy as np

    if validation.fraction <= 0:
        return {name: HeldOut(frozenset(), frozenset()) for name in sets}
    rank = np.argsort(
        np.argsort(ordinals(seed, "validation", names.tolist(), prefix="prompt:"), kind="stable"), kind="stable"
    )
    sizes = {name: np.bincount(groups, minlength=len(names)) for name, groups in sets.items()}
    own = {name: _own(size, rank, validation) for name, size in sizes.items()}
    union = sorted(set().union(*own.values()), key=lambda group: int(rank[group]))
    held = {}
    for name, size in sizes.items():
        taken = set(own[name])
        rows = sum(int(size[group]) for group in taken)
        excluded = set()
        for group in union:
            if group in taken or not size[group]:
                continue
            if rows + size[group] <= validation.max_rows:
                taken.add(group)
                rows += int(size[group])
            else:
                excluded.add(group)
        held[name] = HeldOut(frozenset(taken), frozenset(excluded))
    return held


def _own(size: numpy.ndarray, rank: numpy.ndarray, validation: Validation) -> set[int]:
    import numpy as np

    present = np.flatnonzero(size)
    if len(present) < 2:
        return set()
    target = min(validation.max_rows, max(1, round(int(size.sum()) * validation.fraction)))
    order = present[np.argsort(rank[present], kind="stable")]
    taken: set[int] = set()
    rows = 0
    for group in order.tolist():
        if rows == target:
            break
        if rows + size[group] <= target:
            taken.add(group)
            rows += int(size[group])
    if not taken:
        smallest = min(order.tolist(), key=lambda group: int(size[group]))
        taken = {smallest} if size[smallest] <= validation.max_rows else taken
    return taken
