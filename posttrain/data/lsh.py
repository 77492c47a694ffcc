"""Locality-sensitive hashing of MinHash signatures: which rows share a band, and which of them stay."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
    Pairs: TypeAlias = tuple[Array, Array, Array]  # row, earlier row, number of equal values

_READ = 65_536  # rows of the signatures' file in memory at once
_PAIRS = 1 << 22  # candidate pairs in memory at once
_COMPARED = 1 << 12  # pairs of signatures compared at once: what fits a processor's cache


def shared_buckets(signatures: Array, eligible: Array, bands: int, width: int) -> tuple[Array, Array]:
    """Number the values of each band that several eligible rows have.

    Args:
        signatures: uint32, shape [rows, permutations].
        eligible: bool, shape [rows].
        bands: How many bands.
        width: Values in each; together no more than there are permutations.

    Returns:
        int32, shape [rows, bands]: the bucket of each row in each band, -1 where it is alone; and int64, shape
        [buckets]: how many rows are in each.
    """
    import numpy as np

    rows = len(signatures)
    keys = np.empty((bands, rows), dtype=np.uint64)
    for start in range(0, rows, _READ):
        part = np.asarray(signatures[start : start + _READ, : bands * width]).astype(np.uint64)
        _mix(part.reshape(len(part), bands, width), keys[:, start : start + _READ])
    buckets = np.full((rows, bands), -1, dtype=np.int32)
    taking_part = np.flatnonzero(eligible)
    sizes: list[Array] = []
    numbered = 0
    for band in range(bands):
        own = keys[band, taking_part]
        order = np.argsort(own, kind="stable")
        own = own[order]
        borders = np.flatnonzero(np.r_[True, own[1:] != own[:-1], True]) if len(own) else np.zeros(1, dtype=np.int64)
        size = np.diff(borders)
        number = np.where(size > 1, numbered + np.cumsum(size > 1) - 1, -1).astype(np.int32)
        buckets[taking_part[order], band] = np.repeat(number, size)
        sizes.append(size[size > 1])
        numbered += len(sizes[-1])
    return buckets, np.concatenate(sizes).astype(np.int64)


def _mix(values: Array, into: Array) -> None:
    """Hash the values of each band to 64 bits, as FNV does; a collision only costs a comparison."""
    import numpy as np

    mixed = np.full(values.shape[:2], 0xCBF29CE484222325, dtype=np.uint64)
    for position in range(values.shape[2]):
        mixed ^= values[:, :, position]
        mixed *= np.uint64(0x100000001B3)
        mixed ^= mixed >> np.uint64(29)
    into[...] = mixed.T


class Search:
    """The rows that have company in a bucket, decided block by block in their order.

    Rows are numbered here by their place among those `involved`. `_members` lists for each bucket the rows that stay,
    from `_starts`, as many as `_filled` says. `_low` has the last byte of each value, by which most candidates are
    refused at a quarter of the cost; `_copy_of` the first row whose signature is the same.
    """

    def __init__(
        self, signatures: Array, groups: Array, involved: Array, buckets: Array, sizes: Array, threshold: float
    ) -> None:
        import numpy as np

        self._signatures = signatures
        self._involved = involved
        self._groups = groups[involved]
        self._buckets = buckets
        self._permutations = signatures.shape[1]
        # The least number of equal values; the small term keeps 0.7 of 10 from being 8.
        self._needed = math.ceil(threshold * self._permutations - 1e-9)
        self._starts = np.r_[0, np.cumsum(sizes)][:-1].astype(np.int64)
        self._filled = np.zeros(len(sizes), dtype=np.int64)
        self._members = np.empty(int(sizes.sum()), dtype=np.int32)
        self._stays = np.zeros(len(involved), dtype=bool)
        self._found: list[Pairs] = []
        self._low = np.empty((len(involved), self._permutations), dtype=np.uint8)
        whole = np.empty(len(involved), dtype=np.uint64)
        for start in range(0, len(involved), _READ):
            part = np.asarray(signatures[involved[start : start + _READ]])
            self._low[start : start + _READ] = part.astype(np.uint8)
            _mix(part[:, None, :], whole[None, start : start + _READ])
        order = np.argsort(whole, kind="stable")
        self._copy_of = np.empty(len(involved), dtype=np.int64)
        self._copy_of[order] = order[_run_starts(whole[order])]

    def decide(self, start: int, stop: int) -> None:
        """Decide rows `start` to `stop`; all before have been."""
        import numpy as np

        block = np.arange(start, stop)
        copies = self._copies(block)
        row, bucket = self._entries(np.setdiff1d(block, copies[0], assume_unique=True))
        first = self._starts[bucket]
        known = self._filled[bucket]
        earlier = self._matches(row, first, known, self._members)
        gone = np.zeros(stop - start, dtype=bool)
        gone[earlier[0] - start] = True

        # Among those left, in the order of buckets and rows: each entry with the entries before it in its bucket.
        left = ~gone[row - start]
        order = np.argsort(bucket[left], kind="stable")
        own_row, own_bucket = row[left][order], bucket[left][order]
        run = _run_starts(own_bucket)
        later, other, _ = self._matches(own_row, run, np.arange(len(run)) - run, own_row)
        for one, kept in zip((later - start).tolist(), (other - start).tolist(), strict=True):
            if not gone[kept]:  # pairs come by the later row, whose earlier rows are all decided
                gone[one] = True

        stays = ~gone[own_row - start]
        new_row, new_bucket = own_row[stays], own_bucket[stays]
        place = np.arange(len(new_row)) - _run_starts(new_bucket)
        self._members[self._starts[new_bucket] + self._filled[new_bucket] + place] = new_row
        np.add.at(self._filled, new_bucket, 1)

        removed = gone[row - start]
        added = self._filled[bucket] - known
        beside = self._matches(row[removed], (first + known)[removed], added[removed], self._members)
        self._stays[np.setdiff1d(row, np.flatnonzero(gone) + start)] = True
        self._keep_best(copies, earlier, beside)

    def _copies(self, rows: Array) -> Pairs:
        """Return those rows of which the first copy stays, as pairs; no other row could be kept instead of it."""
        other = self._copy_of[rows]
        counted = self._stays[other] & self._strangers(rows, other)
        rows, other = rows[counted], other[counted]
        same = self._equal_values(rows, other)
        whole = same == self._permutations  # what was compared so far is a hash
        return rows[whole], other[whole], same[whole]

    def _strangers(self, ones: Array, others: Array) -> Array:
        """Tell for each pair whether its rows are not of one group."""
        strangers: Array = (self._groups[ones] != self._groups[others]) | (self._groups[ones] < 0)
        return strangers

    def _entries(self, rows: Array) -> tuple[Array, Array]:
        """Return each row with each of its buckets, by row."""
        import numpy as np

        buckets = self._buckets[rows]
        place, band = np.nonzero(buckets >= 0)
        return rows[place], buckets[place, band].astype(np.int64)

    def _matches(self, rows: Array, starts: Array, counts: Array, pool: Array) -> Pairs:
        """Compare each row with `counts` rows of the pool from `starts` on, of these with the earlier ones.

        Returns:
            The pairs that are similar enough, by row and earlier row, each once.
        """
        import numpy as np

        found = [np.zeros(0, dtype=np.int64)]
        total = np.int64(len(self._involved))
        for low, high in _portions(counts):
            size = counts[low:high]
            offset = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
            one = np.repeat(rows[low:high], size)
            other = pool[np.repeat(starts[low:high], size) + offset].astype(np.int64)
            counted = (other < one) & self._strangers(one, other)
            one, other = one[counted], other[counted]
            likely = _count_equal(self._low, one, other) >= self._needed
            found.append(np.unique(one[likely] * total + other[likely]))
        pairs = np.unique(np.concatenate(found))
        one, other = pairs // total, pairs % total
        same = self._equal_values(one, other)
        alike = same >= self._needed
        return one[alike], other[alike], same[alike]

    def _equal_values(self, ones: Array, others: Array) -> Array:
        return _count_equal(self._signatures, self._involved[ones], self._involved[others])

    def _keep_best(self, *matches: Pairs) -> None:
        import numpy as np

        row, other, same = (np.concatenate(column) for column in zip(*matches, strict=True))
        order = np.lexsort((other, -same, row))
        row, other, same = row[order], other[order], same[order]
        first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if len(row) else np.zeros(0, dtype=np.int64)
        self._found.append((row[first], other[first], same[first]))

    def result(self) -> tuple[Array, Array, Array]:
        """Return what is removed, ascending: int64 row, int64 row kept, float32 share of equal values."""
        import numpy as np

        none = (np.zeros(0, dtype=np.int64),) * 3
        row, other, same = (np.concatenate(column) for column in zip(none, *self._found, strict=True))
        return self._involved[row], self._involved[other], (same / self._permutations).astype(np.float32)


def _count_equal(table: Array, ones: Array, others: Array) -> Array:
    """Count the equal values in each pair of rows of a table."""
    import numpy as np

    same = np.empty(len(ones), dtype=np.int64)
    for start in range(0, len(ones), _COMPARED):
        part = slice(start, start + _COMPARED)
        equal = np.take(table, ones[part], axis=0) == np.take(table, others[part], axis=0)
        same[part] = equal.view(np.uint8).sum(axis=1, dtype=np.uint16)
    return same


def _run_starts(values: Array) -> Array:
    """Return for each place the first of the run of equal values that it is in."""
    import numpy as np

    place = np.arange(len(values))
    begins = np.ones(len(values), dtype=bool)
    begins[1:] = values[1:] != values[:-1]
    return np.maximum.accumulate(np.where(begins, place, 0)) if len(values) else place


def _portions(counts: Array) -> Iterator[tuple[int, int]]:
    """Cut entries into portions of about `_PAIRS` pairs at most, an entry at least each."""
    import numpy as np

    ends = np.cumsum(counts)
    low = 0
    while low < len(counts):
        done = int(ends[low - 1]) if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        yield low, high
        low = high
