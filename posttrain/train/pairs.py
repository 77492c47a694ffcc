"""Preference pairs in one packed row: each prompt once, with both responses behind it.

The idea is that of "Accelerating Direct Preference Optimization with Prefix Sharing" (arXiv 2410.20305). Of a pair, the
row holds

    prompt[:-1] | prompt[-1] + chosen[:-1] | prompt[-1] + rejected[:-1]

that is, what the two sequences share, then what each continues with. The prompt's last token stands in both
continuations, so that each token's successor is the one that follows it in its own sequence; a response's last token
predicts nothing and is left out. Positions go on from the prompt in both continuations. A token attends to those before
it in its own continuation and in what is shared, and to nothing of other pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.train.packing import best_fit_decreasing

if TYPE_CHECKING:
    import torch

IDS, POSITIONS, PARTS, TARGETS = "packed_ids", "packed_positions", "packed_parts", "packed_targets"
KEYS = (IDS, POSITIONS, PARTS, TARGETS)
SHARED, CHOSEN, REJECTED = range(3)  # the parts of a pair
_PARTS = 3
NOTHING = -1  # the part of padding, and the target of a token whose successor is not scored


def shared_length(pair: Mapping[str, Sequence[int]]) -> int:
    """Return how many tokens of a pair are computed once: its prompt but for the last token."""
    return max(len(pair["prompt_ids"]) - 1, 0)


def packed_length(prompt: int, chosen: int, rejected: int) -> int:
    """Return the tokens that a pair takes in a packed row, from the lengths of its prompt and responses in tokens."""
    shared = max(prompt - 1, 0)
    return shared + (prompt + chosen - 1 - shared) + (prompt + rejected - 1 - shared)


def length_of(pair: Mapping[str, Sequence[int]]) -> int:
    """Return the tokens that a pair takes in a packed row."""
    return packed_length(len(pair["prompt_ids"]), len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def group_pairs(lengths: Sequence[int], budget: int, at_least: int = 1) -> list[list[int]]:
    """Put pairs into rows by best-fit decreasing.

    Args:
        lengths: The packed length of each pair.
        budget: Tokens of a row at most; a pair that is longer has a row of its own.
        at_least: How many rows there have to be; the fullest are split until there are so many.

    Returns:
        The pairs of each row by number, in the order in which they came; the rows by their first pair.
    """
    rows = best_fit_decreasing([min(length, budget) for length in lengths], budget)
    while len(rows) < at_least:
        fullest = max(rows, key=len)
        if len(fullest) < 2:
            raise ValueError(f"{len(lengths)} pairs cannot be in {at_least} rows")
        rows.remove(fullest)
        rows += [fullest[::2], fullest[1::2]]
    return sorted(sorted(row) for row in rows)


def lay_out(pairs: Sequence[Mapping[str, Sequence[int]]], width: int, pad: int, multiple: int = 1) -> dict[str, Any]:
    """Lay pairs into one packed row.

    Args:
        pairs: Rows of `prompt_ids`, `chosen_ids` and `rejected_ids`.
        width: Length in tokens of the padded layout to which the results go back, see below.
        pad: The pad token's id.
        multiple: The row is padded to a multiple of so many tokens.

    Returns:
        Four int64 tensors of shape (1, tokens): `packed_ids`; `packed_positions`, the place of each token in its
        sequence; `packed_parts`, three times the pair's number plus `SHARED`, `CHOSEN` or `REJECTED`, and -1 for
        padding; `packed_targets`, for each token whose successor is part of a response, the place of that in a
        flattened array of shape (2 · pairs, width - 1) in which the chosen responses come first, and -1 for others.
    """
    import torch

    ids: list[int] = []
    positions: list[int] = []
    parts: list[int] = []
    targets: list[int] = []
    for number, pair in enumerate(pairs):
        prompt, shared = list(pair["prompt_ids"]), shared_length(pair)
        ids += prompt[:shared]
        positions += range(shared)
        parts += [_PARTS * number + SHARED] * shared
        targets += [NOTHING] * shared
        for part, name in ((CHOSEN, "chosen_ids"), (REJECTED, "rejected_ids")):
            tokens = (prompt + list(pair[name]))[shared:-1]
            first = ((part - CHOSEN) * len(pairs) + number) * (width - 1) + shared
            ids += tokens
            positions += range(shared, shared + len(tokens))
            parts += [_PARTS * number + part] * len(tokens)
            targets += range(first, first + len(tokens))
    room = -len(ids) % multiple
    filled = (ids + [pad] * room, positions + [0] * room, parts + [NOTHING] * room, targets + [NOTHING] * room)
    return {name: torch.tensor([values], dtype=torch.int64) for name, values in zip(KEYS, filled, strict=True)}


def sees(parts: torch.Tensor, query: Any, key: Any) -> Any:
    """Say whether the token at place `query` attends to the one at place `key`; places are tensors that broadcast.

    Args:
        parts: As `lay_out` gives them, of shape (tokens,).
        query: Places in the row.
        key: Places in the row.
    """
    of_query, of_key = parts[query], parts[key]
    in_same_pair = of_query.div(_PARTS, rounding_mode="floor") == of_key.div(_PARTS, rounding_mode="floor")
    visible = in_same_pair & (key <= query) & ((of_key == of_query) | (of_key % _PARTS == SHARED))
    # Padding attends to itself: a softmax over nothing is not a number.
    return (visible & (of_key != NOTHING)) | (query == key)


def dense_mask(parts: torch.Tensor) -> torch.Tensor:
    """Return who attends to whom, boolean of shape (1, 1, tokens, tokens), from parts of shape (1, tokens)."""
    import torch

    places = torch.arange(parts.shape[1], device=parts.device)
    return sees(parts[0], places[:, None], places[None, :])[None, None]


@dataclass(frozen=True)
class PairBatch:
    """What a data loader gives while training: pairs that are laid out later, with the others of their step."""

    pairs: list[dict[str, Any]]
