"""Words, and words in capitals, as the verifiers count them."""

from __future__ import annotations

import re
from functools import cache

from posttrain.evaluate.ifeval.rules import Rules

_WORD = re.compile(r"\w+")
# Where the tokenizer behind the original's count of capital words parts two words that no blank parts; signs at the
# ends of a word do not matter, a word in capitals is one with them and without.
_SEPARATORS = re.compile(r"[«“„`»”;@#$%&‒–—―?!*\[\](){}<>\"]|\.{2,}|--|''")
_LIST_SIGN = re.compile(r"[:,](?=\D|$)")  # not in `12:30` and `1,000`
_ENGLISH_QUOTES = re.compile(r"[‘’]|(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", re.IGNORECASE)
_CLITICS = re.compile(r"(?<=[^'\s])('[sSmMdD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)(?=\.?(?:\s|$))")
_FUSED = re.compile(r"\b(can(?=not\b)|gim(?=me\b)|gon(?=na\b)|got(?=ta\b)|lem(?=me\b)|wan(?=na\s))", re.IGNORECASE)
_FUSED_APOSTROPHE = re.compile(r"\b(d(?='ye\b)|more(?='n\b))|(?<=\s)('t(?=(?:is|was)\b))", re.IGNORECASE)


def count_words(text: str, rules: Rules) -> int:
    """Return how many words a text has: runs of letters, digits and underscores, joined by the language's joiners."""
    return len(_words(rules.joiners).findall(text))


def keyword_pattern(keyword: str, *, whole_word: bool, joiners: str = "") -> re.Pattern[str]:
    """Return a pattern that finds a keyword in any case.

    Args:
        keyword: Taken literally, signs included.
        whole_word: Whether neither a letter, a digit nor an underscore may touch it.
        joiners: With `whole_word`, signs that may not join it to another part of a word either.
    """
    literal = re.escape(keyword)
    if whole_word:
        joined = f"[{re.escape(joiners)}]" if joiners else ""
        before = r"(?<!\w)" + (rf"(?<!\w{joined})" if joined else "")
        after = r"(?!\w)" + (rf"(?!{joined}\w)" if joined else "")
        literal = f"{before}{literal}{after}"
    return re.compile(literal, re.IGNORECASE)


def count_capital_words(text: str, rules: Rules) -> int:
    """Return how many words have capitals and no small letter; a hyphenated word is one.

    In English contractions are two words, as in the original: `DON'T` counts twice, and `I'm` once, for its `I`.
    In Finnish an inflected abbreviation is one word: `EU:N` counts and `EU:n` does not.
    """
    text = _SEPARATORS.sub(" ", text)
    if rules.clitics:
        text = _LIST_SIGN.sub(" ", text)
        text = f" {_ENGLISH_QUOTES.sub(' ', text)} "
        text = _CLITICS.sub(r" \1", text)
        text = _FUSED_APOSTROPHE.sub(r"\g<0> ", _FUSED.sub(r"\1 ", text))
    else:
        text = re.sub(r"[:,](?=\s|$)|,(?=\D)", " ", text)
    return sum(word.isupper() for word in text.split())


@cache
def _words(joiners: str) -> re.Pattern[str]:
    """Return the pattern of a word."""
    if not joiners:
        return _WORD
    return re.compile(rf"\d+(?:[.,:]\d+)+|\w+(?:[{re.escape(joiners)}]\w+)*")
