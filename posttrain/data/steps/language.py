"""Refuse rows in other languages than asked for, and rows answered in another language than they ask in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from posttrain.data.rows import SEVERAL_LANGUAGES, UNKNOWN_LANGUAGE, Conversation, PreferenceRow, Row
from posttrain.data.steps.base import Rejected, Result, answers, user_texts
from posttrain.data.steps.fences import find_fences
from posttrain.data.steps.identifier import check_installed, identify, is_known, same
from posttrain.recipe.schema_data import LanguageFilter

_READ = 8  # times `crop` characters are cleaned, so that `crop` are left even of a text that is mostly code
_NOT_PROSE = re.compile(
    r"`[^`\n]{1,200}`|https?://\S+|www\.\S+|\S+@\S+|</?[A-Za-z][^<>\n]{0,200}>|\\[A-Za-z]+|\$[^$\n]{1,200}\$"
)
_SIGNS_OF_IT = ("`", "<", "@", "\\", "$", "http", "www.")  # none of which most texts have
_WORD = re.compile(r"[^\W\d_]+")

RowT = TypeVar("RowT", bound=Conversation | PreferenceRow)


def as_stated(row: RowT, languages: Sequence[str]) -> RowT | Rejected:
    """Go by what the source says of a row's language, where nobody looks at the text.

    Args:
        row: It is in its entry's language where neither says and the entry asks for one alone.
        languages: The codes that the entry asks for, none where it takes all.
    """
    if not languages or row.language in languages:
        return row
    if row.language != UNKNOWN_LANGUAGE:
        return Rejected(f"language not selected: {row.language}")
    return replace(row, language=languages[0]) if len(languages) == 1 else Rejected("language not stated")


class Language:
    """Identifies the language of prompt and answer, refuses what was not asked for, and fills in what was not stated.

    The prompt is all user turns, the answer all assistant turns, of a pair the chosen one; code, links, formulas and
    tags are left out. What the source says is believed unless the text is clearly in another language (see
    `identifier.identify`), and for texts too short to judge or made of names. A row is refused

    - whose source says a language that its entry does not ask for, or whose prompt is in one;
    - with `match_response`, whose answer is neither in the language of the prompt nor in the one that the source says:
      a request to translate or to sum up may hold more text in another language than in its own.

    Rows in several languages (`mul`) are let through. Languages that heliport does not know are believed. A row of
    which neither the source nor the text tells the language is in its entry's, where that asks for one alone.
    """

    name = "language"

    def __init__(self, options: LanguageFilter, languages: Sequence[str]) -> None:
        """Take the recipe's options and the codes of an entry's languages, none where it takes all.

        Raises:
            UserError: heliport is not installed.
        """
        check_installed("data.filters.language", "leave the filter out")
        self._options = options
        self._languages = tuple(languages)

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row, its language filled in, or why it is refused."""
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row) -> Result:
        if row.language == SEVERAL_LANGUAGES:
            return row
        stated = None if row.language == UNKNOWN_LANGUAGE else row.language
        if stated and self._languages and not any(same(stated, language) for language in self._languages):
            return Rejected(f"language not selected: {stated}")
        prompt = self._language_of(user_texts(row), (stated,) if stated else self._languages)
        if prompt and self._languages and not any(same(prompt, language) for language in self._languages):
            return Rejected(f"language not selected: {prompt}")
        found = prompt or (self._languages[0] if len(self._languages) == 1 else None)
        if stated is None and found is not None:
            row = replace(row, language=found)
        expected = tuple(dict.fromkeys(language for language in (prompt, stated) if language))
        if self._options.match_response and expected:
            response = self._language_of(answers(row), expected)
            if response and not any(same(response, language) for language in expected):
                return Rejected(f"response in another language: prompt {expected[0]}, response {response}")
        return row

    def _language_of(self, texts: Iterable[str], likely: Sequence[str]) -> str | None:
        """Return the language of some texts, one of the likely ones where that can be; None where it cannot be told."""
        if not all(map(is_known, likely)):
            return None
        evidence = telling_words(prose(texts, self._options.crop), self._options.min_letters)
        return identify(evidence, likely) if evidence else None


def telling_words(text: str, min_letters: int) -> str:
    """Return the words of a text by which its language can be told, nothing where there are too few.

    Names are the same in many languages, and a list of them looks like any. So words with a capital are left out where
    the others have `min_letters` letters; where they have fewer, all words count together, if at most half of the
    letters are in words with a capital.
    """
    words = _WORD.findall(text)
    plain = [word for word in words if not word[0].isupper()]
    plain_letters = sum(map(len, plain))
    if plain_letters >= min_letters:
        return " ".join(plain)
    letters = sum(map(len, words))
    if letters < min_letters:
        return ""
    return " ".join(words) if 2 * plain_letters >= letters else ""


def prose(texts: Iterable[str], crop: int) -> str:
    """Return the first `crop` characters of some texts without code, links, addresses, tags and formulas.

    At most 8 times as many characters are looked at.
    """
    pieces: list[str] = []
    read = kept = 0
    for text in texts:
        text = text[: _READ * crop - read]
        read += len(text)
        for start, end in find_fences(text).outside(len(text)):
            piece = text[start : min(end, start + 2 * crop)]
            pieces.append(_NOT_PROSE.sub(" ", piece) if any(sign in piece for sign in _SIGNS_OF_IT) else piece)
            kept += len(pieces[-1])
        if kept >= crop or read >= _READ * crop:
            break
    return " ".join(pieces)[:crop]
