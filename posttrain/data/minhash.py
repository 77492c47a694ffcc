"""Near-duplicate prompts by MinHash signatures and locality-sensitive hashing, in memory that is bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from posttrain.data.duplicates import terms
from posttrain.data.lsh import Search, shared_buckets
from posttrain.data.rows import Row
from posttrain.data.split import normalised
from posttrain.data.steps.base import user_texts
from posttrain.recipe.schema_data import NearDuplicates

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SEED = 1  # of the hash functions: signatures of one build are compared with each other only
RECALL = 0.995  # least share of the pairs at the threshold that have a band in common
_BLOCK = 512  # rows decided together


@dataclass(frozen=True)
class Duplicates:
    """The rows to remove, ascending, each with the row kept in its place.

    Attributes:
        removed: int64, indices of rows.
        kept: int64, of the same length: the most similar earlier row that stays, the first of several.
        similarity: float32, of the same length: the share of equal values in the two signatures, which estimates
            the Jaccard similarity of the two sets of n-grams.
    """

    removed: Array
    kept: Array
    similarity: Array


def prompt_text(row: Row) -> str:
    """Return what near-duplicates are found by: all user turns, a line each; the system turn is left out."""
    return "\n".join(user_texts(row))


def signatures(prompts: Sequence[str], options: NearDuplicates) -> Array:
    """Return the MinHash signature of each text, by rensa's R-MinHash over its set of term n-grams.

    Terms are those of `posttrain.data.duplicates.terms`. A text of fewer than n terms is one n-gram of all its terms,
    a text without any its own normalised self, so that only texts without words that are the same are alike. Equal
    texts have equal signatures in any process and on any little-endian machine, with one version of rensa.

    Args:
        prompts: Texts, in any number.
        options: n and the number of permutations.

    Returns:
        uint32, shape [texts, permutations].
    """
    import numpy as np
    from rensa import RMinHash

    shingles = [_shingles(prompt, options.ngram) for prompt in prompts]
    matrix = RMinHash.digest_matrix_from_token_sets(shingles, options.permutations, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(prompts), options.permutations)


def _shingles(text: str, n: int) -> list[str]:
    found = terms(text)
    if len(found) < n:
        return [" ".join(found) or normalised(text)]
    return list(map(" ".join, zip(*(found[start:] for start in range(n)), strict=False)))


def banding(threshold: float, permutations: int) -> tuple[int, int]:
    """Choose how signatures are cut into bands: the number of bands, and of values in each.

    Two texts of similarity s have at least one of b bands of r values in common with probability 1 - (1 - s^r)^b
    (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.2). Of the r that reach `RECALL` at the
    threshold the largest is taken, then the fewest bands: this compares the fewest pairs below it. Where none does,
    which takes a threshold near 0, every value is a band.
    """
    for width in range(permutations, 0, -1):
        chance = threshold**width
        needed = 1 if chance >= 1 else math.ceil(math.log(1 - RECALL) / math.log1p(-chance)) if chance > 0 else math.inf
        if needed * width <= permutations:
            return int(needed), width
    return permutations, 1


def near_duplicates(signatures: Array, eligible: Array, groups: Array, options: NearDuplicates) -> Duplicates:
    """Remove each row of which an earlier row that stays has an estimated similarity of `threshold` or more.

    Candidates are rows with a band in common, see `banding`; each is then compared by the whole signature. Rows are
    decided in order, and only with rows that stay, so that the work grows with the number of rows times that of
    different prompts with a band in common, and thousands of copies of one prompt cost no more than other rows.

    Args:
        signatures: uint32, shape [rows, permutations]; may be memory-mapped. It is read once from end to end, and
            then where rows are compared.
        eligible: bool, shape [rows]: the others are neither removed nor kept in place of another.
        groups: int64, shape [rows]: rows of one number do not count as duplicates of each other; -1 is no group.
        options: Threshold and permutations.

    Returns:
        What to remove. Besides the signatures this holds at most about 20 bytes a row and band, and one a row and
        permutation.
    """
    import numpy as np

    bands, width = banding(options.threshold, options.permutations)
    buckets, sizes = shared_buckets(signatures, np.asarray(eligible, dtype=bool), bands, width)
    involved = np.flatnonzero((buckets >= 0).any(axis=1))
    search = Search(signatures, np.asarray(groups), involved, buckets[involved], sizes, options.threshold)
    del buckets
    for start in range(0, len(involved), _BLOCK):
        search.decide(start, min(start + _BLOCK, len(involved)))
    return Duplicates(*search.result())
