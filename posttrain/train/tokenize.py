"""The tokenize stages: the rows of a set to tokens in one file a split, packed where the recipe says so.

This is done once and offline, because processes that train and wait for the first of them to tokenise run into the
time-out of their collectives on large data. They only map the files (`posttrain.train.dataset`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from posttrain.parallel import cores
from posttrain.train.dataset import COUNTS, SPLITS, Tally, require_rows
from posttrain.train.packing import SEQ_LENGTHS, pack
from posttrain.train.parts import Part, Settings, encode_parts, list_parts, read_part
from posttrain.train.tokenizer import equip, load_tokenizer
from posttrain.train.tokens import COLUMNS, Encoded

if TYPE_CHECKING:
    import pyarrow as pa

    from posttrain.stages.context import Context

WINDOW = 1 << 28  # bytes of rows that are packed together: bounds the memory, and a few blocks stay unfilled in each
_EVERY = 15.0  # seconds between lines that say how far it is
REFUSED = "rejected.parquet"
STEP = "tokenize"


def tokenize_sft(context: Context) -> None:
    """Write the tokens of the SFT set.

    Raises:
        UserError: No row is left to train on, or template and tokenizer do not fit each other.
    """
    settings = context.recipe.sft
    assert settings is not None
    _tokenize(context, Settings("sft", settings.max_length, settings.loss_on), settings.packing)


def tokenize_preference(context: Context) -> None:
    """Write the tokens of the preference set.

    Raises:
        UserError: No pair is left to train on, or template and tokenizer do not fit each other.
    """
    settings = context.recipe.dpo
    assert settings is not None
    _tokenize(context, Settings("preference", settings.max_length), "none")


def _tokenize(context: Context, settings: Settings, packing: str) -> None:
    from posttrain.chat import Encoder, require_markers

    model = context.recipe.model
    tokenizer = load_tokenizer(context.inputs.get("cpt") or model.tokenizer or model.base or "", model)
    template = equip(tokenizer, model)
    if settings.kind == "sft":
        require_markers(template, settings.loss_on)
    parts = list_parts(context.inputs["data"] / settings.kind, context.work)
    every = [part for split in SPLITS for part in parts[split]]
    num_proc = context.recipe.data.num_proc or cores()
    encoder = Encoder(tokenizer, template)
    tallies, counts = {}, {}
    with (
        closing(encode_parts(every, settings, encoder, num_proc)) as arrived,
        _Refused(context.folder / REFUSED) as refused,
    ):
        for split in SPLITS:
            packed = packing if split == "train" else "none"  # held-out rows are evaluated one by one
            writer = _Writer(context.folder / f"{split}.arrow", settings, packed)
            tally = Tally()
            with writer:
                for encoded in _followed(context, split, parts[split], arrived):
                    tally.add(encoded.tally)
                    writer.write(encoded.table)
                    refused.write(split, encoded.refused)
            assert tally.rows == tally.kept + sum(tally.refused.values()), f"{split}: rows are missing"
            assert writer.rows == tally.kept, f"{split}: {writer.rows} rows of {tally.kept} were written"
            tallies[split], counts[split] = tally, tally.to_json() | {"blocks": writer.blocks}
            if split == "train":
                require_rows(tally, settings.kind)
    text = json.dumps({"max_length": settings.max_length, "packing": packing, **counts}, indent=2, sort_keys=True)
    (context.folder / COUNTS).write_text(text + "\n", encoding="utf-8")
    train, held_out = (tallies[split] for split in SPLITS)
    say = _sayer(context)
    say(f"training: {train.describe()}")
    say(f"held out: {held_out.describe()}")
    if packing != "none":
        filled = train.tokens / (counts["train"]["blocks"] * settings.max_length)
        say(f"packed into {counts['train']['blocks']:,} rows of {settings.max_length} tokens, {filled:.1%} filled")
    for line in shares(train):
        say(line)
    context.report(_metrics(train, held_out, counts["train"]["blocks"]))


def _sayer(context: Context) -> Callable[[str], None]:
    def say(text: str) -> None:
        context.console.print(f"{context.stage}  {text}", highlight=False, markup=False, soft_wrap=True)

    return say


def _followed(context: Context, split: str, parts: list[Part], arrived: Iterator[Part]) -> Iterator[Encoded]:
    """Yield what the parts of a split hold, in order, and say now and then how far it is."""
    rows, said = 0, time.monotonic()
    for number, _ in enumerate(parts, 1):
        encoded = read_part(next(arrived))
        rows += encoded.tally.rows
        yield encoded
        if time.monotonic() - said > _EVERY:
            said = time.monotonic()
            _sayer(context)(f"{split}: {rows:,} rows, {number / len(parts):.0%}")


def shares(tally: Tally) -> list[str]:
    """Return a table, one line a source: rows and trained tokens of the training set, with the share of each."""
    width = max(len("source"), *map(len, tally.sources))
    lines = [f"{'source':<{width}}  {'rows':>11}  {'share':>6}  {'tokens':>13}  {'trained':>13}  {'share':>6}"]
    for name, source in sorted(tally.sources.items()):
        lines.append(
            f"{name:<{width}}  {source.kept:>11,}  {source.kept / tally.kept:>6.1%}  {source.tokens:>13,}  "
            f"{source.trained_tokens:>13,}  {source.trained_tokens / tally.trained_tokens:>6.1%}"
        )
    return lines


def _metrics(train: Tally, held_out: Tally, blocks: int) -> dict[str, Any]:
    sources = {
        name: {
            "rows": source.kept,
            "row_share": round(source.kept / train.kept, 6),
            "trained_tokens": source.trained_tokens,
            "trained_token_share": round(source.trained_tokens / train.trained_tokens, 6),
        }
        for name, source in sorted(train.sources.items())
    }
    figures = {"blocks": blocks, "truncated": train.truncated, "held_out_rows": held_out.kept, "sources": sources}
    return train.metrics(held_out) | figures


class _Refused:
    """The table of rows that were refused; a context manager."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        columns = ("id", "source", "split", "step", "reason", "detail")
        self._schema = pa.schema([(name, pa.string()) for name in columns])
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, split: str, refused: list[dict[str, str]]) -> None:
        import pyarrow as pa

        rows = []
        for entry in refused:
            kind, _, detail = entry["reason"].partition(":")
            about = {"split": split, "step": STEP, "reason": kind, "detail": detail.strip()}
            rows.append({**entry, **about})
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, schema=self._schema))

    def __enter__(self) -> _Refused:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


class _Writer:
    """One Arrow stream of tokens, packed window by window; a context manager.

    Attributes:
        rows: How many rows were given to it.
        blocks: How many rows the file has.
    """

    def __init__(self, path: Path, settings: Settings, packing: str) -> None:
        import pyarrow as pa

        ids = pa.list_(pa.int32())
        names = COLUMNS[settings.kind] + ((SEQ_LENGTHS,) if packing == "bfd" else ())
        self._schema = pa.schema([(name, ids) for name in names])
        self._stream = pa.ipc.new_stream(str(path), self._schema)
        self._capacity, self._packing = settings.max_length, packing
        self._waiting: list[pa.Table] = []
        self.rows = self.blocks = self._bytes_waiting = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(table)
        self.rows += len(table)
        self._bytes_waiting += table.nbytes
        if self._bytes_waiting >= WINDOW:
            self._flush()

    def _flush(self, *, last: bool = False) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        if self._packing != "none":
            table = pack(table, self._capacity, self._packing)
        if self._packing == "wrapped" and not last and len(table):
            # The last block goes on with the rows that come.
            self._waiting = [table.slice(len(table) - 1)]
            table = table.slice(0, len(table) - 1)
        self._bytes_waiting = 0
        self.blocks += len(table)
        self._stream.write_table(table.cast(self._schema).combine_chunks())  # one batch a window

    def __enter__(self) -> _Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush(last=True)
        self._stream.close()
