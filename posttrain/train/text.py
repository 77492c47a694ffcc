"""Plain text for continued pretraining: documents to token ids, and a small corpus in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.recipe.schema import Cpt, TextSource
from posttrain.train.text_files import Aside, Place, documents, open_text

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_AT_ONCE = 256  # documents that the tokenizer is given,
_CHARACTERS = 1 << 20  # and characters: its results take far more room than the ids


def read_documents(source: TextSource, seed: int) -> Generator[str | Aside, None, None]:
    """Yield the documents of a text source: paragraphs of a .txt file, or the text column of its rows.

    Raises:
        UserError: If there is no such file, or its rows have no such column.
    """
    with closing(open_text(source, seed).pieces(Place())) as pieces:
        for piece in pieces:
            yield from documents(piece, source.column)


def is_held_out(document: str, fraction: float, seed: int) -> bool:
    """Say by the hash of its text whether a document is held out; equal documents stay on one side."""
    digest = hashlib.sha256(f"{seed}\0{document}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < fraction


def split_documents(documents: Iterable[str], fraction: float, seed: int) -> tuple[list[str], list[str]]:
    """Return the documents to train on, and those held out."""
    train: list[str] = []
    held_out: list[str] = []
    for document in documents:
        (held_out if is_held_out(document, fraction, seed) else train).append(document)
    return train, held_out


@dataclass(frozen=True)
class Ends:
    """The token that each document begins with, if the tokenizer has one, and the one that it ends with."""

    head: tuple[int, ...]
    tail: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Ends:
        """Return those of a tokenizer: BOS and the end of text."""
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        return cls(*(() if token is None else (int(token),) for token in ends))


def encode(texts: Sequence[str], backend: Any, ends: Ends) -> Iterator[list[int]]:
    """Yield the ids of each document, its ends included.

    A document that spells a special token gets the ids of its letters: only the ends are special.

    Args:
        texts: The documents.
        backend: The `tokenizers.Tokenizer` of a fast tokenizer; it is changed to the above.
        ends: The ends.
    """
    backend.encode_special_tokens = True
    start = 0
    while start < len(texts):
        end, size = start, 0
        while end < len(texts) and end - start < _AT_ONCE and size < _CHARACTERS:
            size += len(texts[end])
            end += 1
        for encoding in backend.encode_batch_fast(list(texts[start:end]), add_special_tokens=False):
            yield [*ends.head, *encoding.ids, *ends.tail]
        start = end


def own_backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return a copy of a fast tokenizer's backend, which cuts and pads nothing."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def blocks(documents: list[str], tokenizer: PreTrainedTokenizerBase, length: int, seed: int) -> tuple[Dataset, int]:
    """Lay the documents end to end, in seeded order, and cut them into rows of exactly `length` tokens.

    Each document begins with the tokenizer's BOS, if it has one, and ends with its end of text. Documents of a row
    attend to those before them.

    Returns:
        Rows of `input_ids` and `labels`, and the number of tokens left over at the end, less than one row.
    """
    from datasets import Dataset

    order = sorted(documents, key=lambda text: hashlib.sha256(f"{seed}\0order\0{text}".encode()).digest())
    stream = [token for ids in encode(order, own_backend(tokenizer), Ends.of(tokenizer)) for token in ids]
    rows = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows}), len(stream) - len(rows) * length


@dataclass(frozen=True)
class Corpus:
    """All documents of a recipe in memory: to train on, held out, and what could not be used."""

    train: list[str]
    held_out: list[str]
    aside: list[Aside]


def load_text(settings: Cpt, seed: int) -> Corpus:
    """Read every text source of the recipe and split it into training and held-out documents.

    Raises:
        UserError: If they hold no text.
    """
    found: list[str] = []
    aside: list[Aside] = []
    for source in settings.text:
        for document in read_documents(source, seed):
            if isinstance(document, Aside):
                aside.append(document)
            else:
                found.append(document)
    if not found:
        raise UserError("cpt.text: the sources hold no text")
    return Corpus(*split_documents(found, settings.validation_fraction, seed), aside)
