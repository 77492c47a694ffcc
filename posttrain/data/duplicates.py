"""What makes two rows the same: the text they are compared by, its words, and the first of several equal keys."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Any, TypeAlias

from posttrain.data.rows import Message, PreferenceRow, Row
from posttrain.data.split import normalised

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

KEY_BYTES = 16

# Lao and Thai, Burmese, Khmer, kana and Han: written without blanks, so that a character is the nearest to a word.
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_SPACELESS = re.compile(f"[{SPACELESS}]")
_WORD = re.compile(r"[^\W_]+")
_APOSTROPHES = "'’‘ʼ‛`´"
_TYPOGRAPHIC = "“”„–—•"
# For the texts that Latin-1 can write, many times faster than a regular expression: no word loses a character by it.
_LATIN_BLANKS = bytes(code if _WORD.match(chr(code)) else 0x20 for code in range(256))
_LATIN_APOSTROPHES = "".join(sign for sign in _APOSTROPHES if ord(sign) < 256).encode("latin-1")
# What may stand around a word without changing it. Signs that carry meaning in mathematics and code are not in it.
_AROUND = ".,;:!?…\"'`’‘“”„‚«»‹›()[]{}¿¡"


def text_key(row: Row) -> bytes:
    """Return 16 bytes that are equal for rows with equal text but for case, blanks and Unicode form.

    Roles and the borders between turns count; `source`, `language` and `meta` do not. The key is a BLAKE2b digest of
    the turns, each written with its role and length, so that no text can imitate a border.
    """
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    parts: list[tuple[str, list[Message]]]
    if isinstance(row, PreferenceRow):
        parts = [("prompt", row.prompt), ("chosen", row.chosen), ("rejected", row.rejected)]
    else:
        parts = [("messages", row.messages)]
    for part, messages in parts:
        for message in messages:
            content = normalised(message["content"]).encode()
            digest.update(f"{part} {message['role']} {len(content)}\n".encode())
            digest.update(content)
    return digest.digest()


def first_occurrences(keys: Array) -> Array:
    """Return for each key the index of the first that is equal to it, its own where there is none before it.

    Args:
        keys: `S16` or `V16`, shape [rows]: keys of 16 bytes, zeros at their ends included.

    Returns:
        int64, shape [rows].

    Raises:
        ValueError: The keys are not one row of 16 bytes each.
    """
    import numpy as np

    if keys.ndim != 1 or keys.dtype.itemsize != KEY_BYTES:
        raise ValueError(f"keys must be {KEY_BYTES} bytes each in one dimension, not {keys.dtype} {keys.shape}")
    first = np.arange(len(keys), dtype=np.int64)
    if len(keys) == 0:
        return first
    # As two integers: numpy compares S16 without its zeros at the end, and cannot sort V16.
    halves = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable, so that each run begins with its least index
    ordered = halves[order]
    starts = np.empty(len(keys), dtype=bool)
    starts[0] = True
    np.any(ordered[1:] != ordered[:-1], axis=1, out=starts[1:])
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def words(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, in compatibility form (NFKC) and folded case.

    Apostrophes are left out (`don't` is `dont`); anything else between two words parts them, hyphens and underscores
    too (`well-known` is two words). Where a script has no blanks, each character is a word.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if not text.isascii():
        text = _without_typography(text)
    try:
        return text.encode("latin-1").translate(_LATIN_BLANKS, _LATIN_APOSTROPHES).decode("latin-1").split()
    except UnicodeEncodeError:
        for sign in _APOSTROPHES:
            text = text.replace(sign, "")
        return _WORD.findall(_SPACELESS.sub(r" \g<0> ", text))


def is_latin(text: str) -> bool:
    """Tell whether Latin-1 can write a text: the quickest way to know that no character of other scripts is in it."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _without_typography(text: str) -> str:
    """Do what `words` does with the signs that most often keep a text from being Latin-1."""
    text = text.replace("’", "").replace("‘", "")
    for sign in _TYPOGRAPHIC:
        text = text.replace(sign, " ")
    return text


def terms(text: str) -> list[str]:
    """Return what stands between blanks, normalised, without the punctuation around it.

    Finer than `words`: signs inside and between words stay, because prompts such as `3 + 4` and `3 - 4`, or `C` and
    `C++`, differ in nothing else. Where a script has no blanks, each character is a term.
    """
    text = normalised(text)
    if not is_latin(text) and _SPACELESS.search(text):
        text = _SPACELESS.sub(r" \g<0> ", text)
    return [term for piece in text.split() if (term := piece.strip(_AROUND))]
