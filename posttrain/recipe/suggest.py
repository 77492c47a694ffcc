"""What the writer of a recipe probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

_CUTOFF = 0.6  # of difflib's ratio: `learing_rate` to `learning_rate` is 0.96, `lr` to `learning_rate` 0.27


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words closest to `word`, all that are equally close, in the order given; [] where none is."""
    ratios = {name: SequenceMatcher(None, name.lower(), word.lower()).ratio() for name in known}
    best = max(ratios.values(), default=0.0)
    return [name for name, ratio in ratios.items() if ratio >= _CUTOFF and best - ratio < 1e-9]


def either(words: Sequence[str], last: str = " or ") -> str:
    """Join words for a sentence: `a`, `a or b`, `a, b or c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + last + words[-1]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean x?`, or the list of what is known where nothing comes near."""
    known = list(known)
    close = nearest(word, known)
    return f"did you mean {either(close)}?" if close else f"known: {', '.join(known)}"
