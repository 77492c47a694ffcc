"""Rows whose prompts mean nearly the same: the exact search for neighbours among embeddings, in bounded memory.

The distance is Euclidean and squared, as in Magpie's releases (Xu et al. 2024, arXiv 2406.08464); of vectors of length
1 it is 2 - 2 cos. Every row is compared with all earlier rows that stay, which takes at most rows² × dimensions
floating-point operations, on a GPU if there is one. On two cores that is a few seconds for 14,000 rows of 384
dimensions and a quarter of an hour for 300,000 of 768, less than it takes to embed them there: so there is no need of
an index that would miss neighbours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from posttrain.data.minhash import Duplicates
from posttrain.recipe.schema_data import SemanticDuplicates

if TYPE_CHECKING:
    import numpy as np
    import torch

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_BLOCK = 1024  # rows decided together
_TILE = 8192  # rows that stay with which a block is compared at once: 32 MB of products
_EXACT = 1 << 12  # pairs whose distance is computed at once
# How far a product of two float32 unit vectors may be off, with room for GPUs that multiply in TF32, whose 10 bits of
# mantissa cost 0.001 at most. It only adds pairs to those whose distance is then computed in float64.
_SLACK = 2e-3
_LENGTH = 1e-3  # how far a vector's length may be off 1


def semantic_duplicates(vectors: Array, eligible: Array, groups: Array, options: SemanticDuplicates) -> Duplicates:
    """Remove each row that has an earlier row that stays at a distance of `threshold` or less.

    Rows are decided in order, so that of each group of near-duplicates the first stays. Whether a pair is near is
    decided on its distance in float64, pair by pair, so that the result depends neither on how the work is cut up nor
    on the device.

    Args:
        vectors: float32 or float16, shape [rows, dimensions], each of length 1; may be memory-mapped.
        eligible: bool, shape [rows]: the others are neither removed nor kept in place of another.
        groups: int64, shape [rows]: rows of one number do not count as duplicates of each other; -1 is no group.
        options: The threshold, of the squared Euclidean distance.

    Returns:
        What to remove, each with the nearest earlier row that stays, the first of several; `similarity` is the cosine
        of the two vectors. On a GPU that has room the vectors are copied there, otherwise at most
        `_TILE + 2 * _BLOCK` of them are in memory.

    Raises:
        ValueError: Vectors that are not of length 1.
    """
    import numpy as np

    involved = np.flatnonzero(np.asarray(eligible, dtype=bool))
    search = _Search(vectors, involved, np.asarray(groups), options.threshold)
    for start in range(0, len(involved), _BLOCK):
        search.decide(start, min(start + _BLOCK, len(involved)))
    gone = np.flatnonzero(search.kept >= 0)
    return Duplicates(
        removed=involved[gone],
        kept=search.kept[gone],
        similarity=(1 - search.distance[gone] / 2).astype(np.float32),
    )


class _Search:
    """The rows decided so far, each with its nearest row that stays where that is near enough.

    Rows are numbered by their place among those `involved`; `kept` alone has numbers of rows of the whole table.
    """

    def __init__(self, vectors: Array, involved: Array, groups: Array, threshold: float) -> None:
        import numpy as np

        self._table = _Table(vectors)
        self._involved = involved
        self._groups = groups[involved]
        self._threshold = threshold
        self._least = 1 - threshold / 2 - _SLACK  # of the products of pairs worth a second look
        self._stays = np.zeros(len(involved), dtype=bool)
        self.kept = np.full(len(involved), -1, dtype=np.int64)
        self.distance = np.full(len(involved), np.inf)

    def decide(self, start: int, stop: int) -> None:
        """Decide the rows from `start` to `stop`; all before have been."""
        import numpy as np

        block = np.arange(start, stop)
        own = self._table.block(self._involved[block])
        earlier = np.flatnonzero(self._stays[:start])
        for low in range(0, len(earlier), _TILE):
            others = earlier[low : low + _TILE]
            self._take(*self._near(block, own, others, self._table.load(self._involved[others])))
        gone = self.kept[block] >= 0

        # Those left are compared with each other; pairs come by the later row, whose earlier rows are all decided.
        left = np.flatnonzero(~gone)
        ones, others, _ = self._near(block[left], own[left], block[left], own[left])
        for one, other in zip((ones - start).tolist(), (others - start).tolist(), strict=True):
            if not gone[other]:
                gone[one] = True
        self._stays[block] = ~gone

        # A row that goes for an earlier block may have a nearer row that stays in its own.
        removed, beside = np.flatnonzero(gone), np.flatnonzero(~gone)
        self._take(*self._near(block[removed], own[removed], block[beside], own[beside]))

    def _near(self, rows: Array, vectors: torch.Tensor, others: Array, there: torch.Tensor) -> tuple[Array, ...]:
        """Return the pairs of a row and an earlier one of another group that are near, and their distances, in order.

        Args:
            rows: Which rows; ascending.
            vectors: Theirs.
            others: With which rows they are compared; ascending.
            there: Theirs.
        """
        import numpy as np

        likely = (vectors @ there.T >= self._least).nonzero().cpu().numpy()
        one, other = rows[likely[:, 0]], others[likely[:, 1]]
        counted = (other < one) & ((self._groups[one] != self._groups[other]) | (self._groups[one] < 0))
        one, other = one[counted], other[counted]
        distances = np.empty(len(one))
        for low in range(0, len(one), _EXACT):
            part = slice(low, low + _EXACT)
            distances[part] = self._table.distances(self._involved[one[part]], self._involved[other[part]])
        near = distances <= self._threshold
        return one[near], other[near], distances[near]

    def _take(self, rows: Array, others: Array, distances: Array) -> None:
        """Note for each row the nearest of the others, unless a nearer or equally near one is known."""
        import numpy as np

        order = np.lexsort((others, distances, rows))
        rows, others, distances = rows[order], others[order], distances[order]
        first = np.r_[True, rows[1:] != rows[:-1]][: len(rows)]
        rows, others, distances = rows[first], others[first], distances[first]
        nearer = distances < self.distance[rows]
        self.distance[rows[nearer]] = distances[nearer]
        self.kept[rows[nearer]] = self._involved[others[nearer]]


class _Table:
    """The vectors, on a GPU where there is one with room for them."""

    def __init__(self, vectors: Array) -> None:
        import torch

        self._vectors = vectors
        self._device = torch.device("cpu")
        self._copy: torch.Tensor | None = None
        if torch.cuda.is_available() and vectors.size:
            self._device = torch.device("cuda")
            if 4 * vectors.size < torch.cuda.mem_get_info()[0] // 2:
                self._copy = torch.empty(vectors.shape, dtype=torch.float32, device=self._device)
                for start in range(0, len(vectors), _TILE):
                    self._copy[start : start + _TILE] = self._from_memory(slice(start, start + _TILE))

    def _from_memory(self, rows: Array | slice) -> torch.Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(np.array(self._vectors[rows], dtype=np.float32)).to(self._device)

    def load(self, rows: Array) -> torch.Tensor:
        """Return rows as float32, shape [rows, dimensions]."""
        import torch

        if self._copy is None:
            return self._from_memory(rows)
        return self._copy[torch.from_numpy(rows).to(self._device)]

    def block(self, rows: Array) -> torch.Tensor:
        """Return rows that are seen for the first time.

        Raises:
            ValueError: One is not of length 1.
        """
        found = self.load(rows)
        if not bool(((found.norm(dim=1) - 1).abs() < _LENGTH).all()):  # NaN is not either
            raise ValueError("vectors: not all are of length 1")
        return found

    def distances(self, ones: Array, others: Array) -> Array:
        """Return the squared Euclidean distance of each pair of rows, float64."""
        import numpy as np

        between = self._vectors[ones].astype(np.float64) - self._vectors[others]
        squared: Array = np.square(between).sum(axis=1)
        return squared


def first_prompts(kind: str, folder: Path, chosen: Array) -> list[str]:
    """Return the first user turn of some rows of a part, in order.

    Args:
        kind: The set that the part is of, `sft` or `preference`.
        folder: The part's.
        chosen: Places of rows in it.
    """
    from posttrain.data.tables import read_arrow

    if not len(chosen):
        return []
    column = read_arrow(folder / "rows.arrow").column("prompt" if kind == "preference" else "messages")
    conversations = column.take(chosen).to_pylist()
    return [next(turn["content"] for turn in turns if turn["role"] == "user") for turns in conversations]
