"""Plain text for continued pretraining: read, split, and cut into blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.assets import locate
from posttrain.errors import UserError
from posttrain.recipe.schema import Cpt, TextSource

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_TOKENIZED_AT_ONCE = 1000


def _paragraphs(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"cpt.text: {path} is not UTF-8 (byte {error.start}); convert it first") from error
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            yield paragraph.strip()


def read_documents(source: TextSource) -> Iterator[str]:
    """Yield the documents of a text source: paragraphs of a .txt file, or the text column of its rows.

    Raises:
        UserError: If there is no such file, or its rows have no such column.
    """
    from posttrain.data.read import read_records

    path = Path(locate(source.path))
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if path.suffix == ".txt" or (path.is_dir() and files):
        for file in files:
            if not file.is_file():
                raise UserError(f"cpt.text: there is no file {source.path}")
            yield from _paragraphs(file)
        return
    for record in read_records(source):
        if not isinstance(record.get(source.column), str):
            raise UserError(
                f"cpt.text: the rows of {source.path} have no text in a column {source.column!r}; "
                f"they have {', '.join(sorted(record))}"
            )
        yield record[source.column]


def split_documents(documents: Iterable[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Hold out a share of the documents by the hash of their text; equal documents stay on one side."""
    train: list[str] = []
    held_out: list[str] = []
    for document in documents:
        digest = hashlib.sha256(f"{seed}\0{document}".encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        (held_out if share < fraction else train).append(document)
    return train, held_out


def blocks(documents: list[str], tokenizer: PreTrainedTokenizerBase, length: int, seed: int) -> tuple[Dataset, int]:
    """Lay the documents end to end, in seeded order, and cut them into rows of exactly `length` tokens.

    Each document begins with the tokenizer's BOS, if it has one, and ends with its end of text.

    Returns:
        Rows of `input_ids` and `labels`, and the number of tokens left over at the end, less than one row.
    """
    from datasets import Dataset

    order = sorted(documents, key=lambda text: hashlib.sha256(f"{seed}\0order\0{text}".encode()).digest())
    head = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    tail = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    stream: list[int] = []
    for start in range(0, len(order), _TOKENIZED_AT_ONCE):
        batch = tokenizer(order[start : start + _TOKENIZED_AT_ONCE], add_special_tokens=False)
        for ids in batch["input_ids"]:
            stream += [*head, *ids, *tail]
    rows = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows}), len(stream) - len(rows) * length


def load_text(settings: Cpt, seed: int) -> tuple[list[str], list[str]]:
    """Read every text source of the recipe and split it into training and held-out documents."""
    documents = [document for source in settings.text for document in read_documents(source)]
    if not documents:
        raise UserError("cpt.text: the sources hold no text")
    return split_documents(documents, settings.validation_fraction, seed)
