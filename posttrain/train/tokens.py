"""Rows to token ids and labels, a batch at a time, in columns of int32.

What this imports at call time is little, because it runs in processes of its own: neither torch nor the tokenizer
classes of transformers.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posttrain.chat.encode import Encoder, Refusal
from posttrain.train.dataset import IGNORED, NOTHING_LEFT, TOO_LONG, Tally
from posttrain.train.packing import ragged

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Row = Mapping[str, Any]
COLUMNS = {"sft": ("input_ids", "labels"), "preference": ("prompt_ids", "chosen_ids", "rejected_ids")}
_AT_ONCE = 256  # rows that the tokenizer is given: its results take some 100 bytes a token until they are copied


@dataclass
class Encoded:
    """Rows as tokens.

    Attributes:
        table: The rows that are trained on, in order: `COLUMNS` of their kind.
        tally: The counts.
        refused: `id`, `source`, `reason` of each other row, in order.
    """

    table: pa.Table
    tally: Tally = field(default_factory=Tally)
    refused: list[dict[str, str]] = field(default_factory=list)


class _Lists:
    """Lists of ids, laid end to end."""

    def __init__(self) -> None:
        self._values = array("i")
        self.lengths: list[int] = []

    def append(self, ids: list[int]) -> None:
        self._values.fromlist(ids)
        self.lengths.append(len(ids))

    def values(self) -> np.ndarray:
        import numpy as np

        return np.frombuffer(self._values, dtype=np.int32) if self._values else np.zeros(0, dtype=np.int32)

    def to_arrow(self) -> pa.ListArray:
        import numpy as np

        return ragged(self.values(), np.array(self.lengths, dtype=np.int64))


def encode_sft(rows: Sequence[Row], encoder: Encoder, *, loss_on: str, max_length: int) -> Encoded:
    """Encode SFT rows as `input_ids` and `labels`.

    A row longer than `max_length` is cut at its end; one that then has no trained token is refused. The first token of
    a row never has a loss, packed or not: nothing comes before it to predict it from.

    Args:
        rows: Rows with `id`, `source` and `messages`.
        encoder: Tokenizer and template.
        loss_on: `assistant` or `all`.
        max_length: In tokens.
    """
    import pyarrow as pa

    out = Encoded(pa.table({}))
    stretches, trained, of_row = _Lists(), [], []
    taken: list[Row] = []
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE]
        results = encoder.chats([row["messages"] for row in batch], loss_on)
        for row, result in zip(batch, results, strict=True):
            if isinstance(result, Refusal):
                _refuse(out, row, result.reason)
                continue
            for stretch in result:
                stretches.append(stretch.ids)
                trained.append(stretch.trained)
                of_row.append(len(taken))
            taken.append(row)
    _label(out, taken, stretches, trained, of_row, max_length)
    return out


def _label(
    out: Encoded, rows: list[Row], stretches: _Lists, trained: list[bool], of_row: list[int], max_length: int
) -> None:
    """Cut the rows, give them labels, leave out those without any, and count.

    Args:
        out: Gets the table, the counts and the refusals.
        rows: The rows that could be encoded.
        stretches: Their stretches of ids.
        trained: Whether each stretch is trained.
        of_row: To which row each belongs.
    """
    import numpy as np
    import pyarrow as pa

    ids, lengths = stretches.values(), np.array(stretches.lengths, dtype=np.int64)
    whole = np.bincount(np.array(of_row, dtype=np.int64), weights=lengths, minlength=len(rows)).astype(np.int64)
    starts = np.cumsum(whole) - whole
    with_loss = np.repeat(np.array(trained, dtype=bool), lengths)
    with_loss[starts[whole > 0]] = False
    labels = np.where(with_loss, ids, np.int32(IGNORED))
    cut = np.minimum(whole, max_length)
    before = np.concatenate([[0], np.cumsum(with_loss)])  # trained tokens before each place
    trained_tokens = before[starts + cut] - before[starts]
    for row, tokens, count, uncut in zip(rows, cut.tolist(), trained_tokens.tolist(), whole.tolist(), strict=True):
        if count:
            out.tally.keep(row["source"], tokens, count, truncated=tokens < uncut)
        else:
            _refuse(out, row, NOTHING_LEFT)
    good = trained_tokens > 0
    if not good.all() or (cut < whole).any():
        place = np.arange(len(ids)) - np.repeat(starts, whole)  # of each token in its row
        chosen = place < np.repeat(np.where(good, cut, 0), whole)
        ids, labels, cut = ids[chosen], labels[chosen], cut[good]
    out.table = pa.table({"input_ids": ragged(ids, cut), "labels": ragged(labels, cut)})


def encode_preference(rows: Sequence[Row], encoder: Encoder, *, max_length: int) -> Encoded:
    """Encode preference rows as `prompt_ids`, `chosen_ids` and `rejected_ids`.

    A pair of which either response, behind the prompt, is longer than `max_length` is refused: cutting one response
    and not the other would compare a whole answer with a part. Its prompt counts twice among the tokens, because the
    trainer reads it twice.

    Args:
        rows: Rows with `id`, `source`, `prompt`, `chosen` and `rejected`.
        encoder: Tokenizer and template.
        max_length: In tokens.
    """
    import pyarrow as pa

    out = Encoded(pa.table({}))
    columns = {name: _Lists() for name in COLUMNS["preference"]}
    for start in range(0, len(rows), _AT_ONCE):
        batch = rows[start : start + _AT_ONCE]
        for row, result in zip(batch, encoder.pairs(batch), strict=True):
            if isinstance(result, Refusal):
                _refuse(out, row, result.reason)
                continue
            prompt, responses = len(result.prompt_ids), (len(result.chosen_ids), len(result.rejected_ids))
            if prompt + max(responses) > max_length:
                _refuse(out, row, TOO_LONG)
                continue
            out.tally.keep(row["source"], 2 * prompt + sum(responses), sum(responses))
            for name, lists in columns.items():
                lists.append(getattr(result, name))
    out.table = pa.table({name: lists.to_arrow() for name, lists in columns.items()})
    return out


def _refuse(out: Encoded, row: Row, reason: str) -> None:
    out.tally.refuse(row["source"], reason)
    out.refused.append({"id": row["id"], "source": row["source"], "reason": reason})
