"""Rows as the model sees them: token by token, with what is trained told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.train.dataset import IGNORED, SPLITS
from posttrain.train.parts import Part, Settings, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Encoder

_REPLACEMENT = "�"  # what a part of a character decodes to
_LONGEST = 8  # tokens that are tried together for one character


@dataclass(frozen=True)
class Cell:
    """One token, or the several that make up one character, as text. `ids` are those of the tokens."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    special: bool


@dataclass(frozen=True)
class Section:
    """A stretch with a title: `prompt`, `chosen` or `rejected` of a pair; a chat is one, without a title."""

    title: str
    cells: tuple[Cell, ...]
    tokens: int
    trained: int


@dataclass(frozen=True)
class Shown:
    """A row. One that the tokenize stage refuses has a `refusal` and no sections; `cut` says that it was too long."""

    id: str
    source: str
    split: str
    sections: tuple[Section, ...] = ()
    refusal: str | None = None
    cut: bool = False

    @property
    def tokens(self) -> int:
        """Its tokens, a pair's prompt counted once."""
        return sum(section.tokens for section in self.sections)

    @property
    def trained(self) -> int:
        """Those of them that have a loss."""
        return sum(section.trained for section in self.sections)


def find_rows(
    data: Path, kind: str, count: int, *, row_id: str | None = None, source: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the split and the row of the first rows of a set, of the training rows before the held-out ones.

    Args:
        data: The folder of the data stage.
        kind: `sft` or `preference`.
        count: At most so many rows; of an id all that have it.
        row_id: Only rows of this id.
        source: Only rows of this source.

    Raises:
        UserError: No row is as asked for.
    """
    import pyarrow.parquet

    found, sources = 0, set()
    for split in SPLITS:
        path = data / kind / f"{split}.parquet"
        with pyarrow.parquet.ParquetFile(path) as file:
            groups = file.num_row_groups
        for group in range(groups):
            for row in read_rows(Part(path, group, path), kind):
                sources.add(row["source"])
                if row_id not in (None, row["id"]) or source not in (None, row["source"]):
                    continue
                yield split, row
                found += 1
                if found == count and row_id is None:
                    return
    if found:
        return
    if row_id is not None:
        of_source = f" of source {source}" if source is not None else ""
        raise UserError(
            f"--id {row_id}: no {kind} row{of_source} in {data} has this id; ids are in the column id there"
        )
    if source is not None:
        raise UserError(f"--source {source}: the {kind} rows in {data} have none, only {', '.join(sorted(sources))}")
    raise UserError(f"{data / kind} holds no rows")


def preview(
    row: dict[str, Any], split: str, settings: Settings, encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> Shown:
    """Return a row as the tokenize stage encodes it."""
    encoded = settings.encode([row], encoder)
    shown = {"id": row["id"], "source": row["source"], "split": split}
    if encoded.refused:
        return Shown(**shown, refusal=encoded.refused[0]["reason"])
    (values,) = encoded.table.to_pylist()
    if settings.kind == "sft":
        mask = [label != IGNORED for label in values["labels"]]
        sections = [_section("", values["input_ids"], mask, tokenizer)]
    else:
        sections = []
        for name in ("prompt", "chosen", "rejected"):
            ids = values[f"{name}_ids"]
            sections.append(_section(name, ids, [name != "prompt"] * len(ids), tokenizer))
    return Shown(**shown, sections=tuple(sections), cut=bool(encoded.tally.truncated))


def _section(title: str, ids: Sequence[int], mask: Sequence[bool], tokenizer: PreTrainedTokenizerBase) -> Section:
    return Section(title, tuple(_cells(ids, mask, tokenizer)), len(ids), sum(mask))


def _cells(ids: Sequence[int], mask: Sequence[bool], tokenizer: PreTrainedTokenizerBase) -> Iterator[Cell]:
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    at = 0
    while at < len(ids):
        end = at + 1
        while _is_partial(tokenizer, ids[at:end]):
            end += 1
            if end > min(len(ids), at + _LONGEST) or mask[end - 1] != mask[at] or ids[end - 1] in special:
                end = at + 1  # it is no character even so
                break
        own = tuple(ids[at:end])
        yield Cell(_decode(tokenizer, own), own, bool(mask[at]), ids[at] in special)
        at = end


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _is_partial(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> bool:
    return _REPLACEMENT in _decode(tokenizer, ids)
