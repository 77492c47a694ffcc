"""A piece of text to token ids, in any process.

What this imports at call time is little, because it runs in processes of its own.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posttrain.parallel import ordered
from posttrain.train.text import Ends, encode, is_held_out
from posttrain.train.text_files import Aside, Piece, Place, documents

if TYPE_CHECKING:
    import numpy as np

# What a process needs; loaded once and shared, where the system can.
_PRELOAD = ("numpy", "tokenizers", "posttrain.train.text_tokens")


@dataclass(frozen=True)
class Encoding:
    """How the documents of a source become tokens.

    Attributes:
        backend: The `tokenizers.Tokenizer`.
        ends: What each document begins and ends with.
        column: The column of a row that holds its text.
        fraction: The share of the documents that is held out.
        seed: The recipe's seed, by which they are chosen.
        dtype: What the ids are stored as.
    """

    backend: Any
    ends: Ends
    column: str
    fraction: float
    seed: int
    dtype: str


@dataclass
class Encoded:
    """The tokens of a piece, laid end to end, those of held-out documents apart."""

    train: np.ndarray
    held_out: np.ndarray
    after: Place
    documents: int = 0
    held_out_documents: int = 0
    aside: list[Aside] = field(default_factory=list)


_begun: Encoding | None = None  # of this process


def _begin(encoding: Encoding) -> None:
    global _begun
    if multiprocessing.parent_process() is not None:  # the processes share the cores already
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        gc.freeze()  # or each collection would go through all that was imported
    _begun = encoding


def encode_pieces(pieces: Iterator[Piece], encoding: Encoding, num_proc: int) -> Iterator[Encoded]:
    """Encode pieces in order, in several processes; few of them are read ahead."""
    return ordered(pieces, _encode_piece, num_proc, start=_begin, arguments=(encoding,), preload=_PRELOAD)


def _encode_piece(piece: Piece) -> Encoded:
    assert _begun is not None
    return encode_piece(piece, _begun)


def encode_piece(piece: Piece, encoding: Encoding) -> Encoded:
    """Encode a piece.

    Raises:
        UserError: If its rows do not have the column.
    """
    import numpy as np

    texts: list[str] = []
    aside: list[Aside] = []
    for document in documents(piece, encoding.column):
        if isinstance(document, Aside):
            aside.append(document)
        else:
            texts.append(document)
    ids = {False: array("I"), True: array("I")}  # by whether they are held out
    counts = {False: 0, True: 0}
    for text, tokens in zip(texts, encode(texts, encoding.backend, encoding.ends), strict=True):
        held_out = is_held_out(text, encoding.fraction, encoding.seed)
        ids[held_out].fromlist(tokens)
        counts[held_out] += 1
    train, held = (np.array(ids[side], dtype=encoding.dtype) for side in (False, True))
    return Encoded(train, held, piece.after, counts[False], counts[True], aside)
