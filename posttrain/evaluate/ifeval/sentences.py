"""Where sentences end, in English and in Finnish.

A sentence ends at `.`, `!`, `?` or `…` that white space or the end of the text follows, whether or not a capital comes
next, so that a text in small letters has sentences too. Excepted are

- a quotation that its sentence goes on after: `"Really?" she asked.`;
- three dots, where no capital follows;
- initials and abbreviations: `Rules.never_final`, `perhaps_final` and `before_number`;
- numbers where a small letter follows, in Finnish where no capital does, and Roman numerals likewise: `3. luku`,
  `6.12. klo 12.30`, `Kaarle XII. kerran`;
- in Finnish, a number that opens a line or a sentence, as those of a list do. In English it counts as a sentence, as in
  the original.

A line break ends no sentence, as in the original: a heading belongs to the sentence after it.
"""

from __future__ import annotations

import re

from posttrain.evaluate.ifeval.rules import Rules

# The closing signs may be followed by `[12]`, which cites a source.
_STOP = re.compile(r"(?<![.!?…])[.!?…]+(?P<closing>(?:\[[\w ]{1,20}\]|[\"'”’»)\]}*_`])*)(?=\s|$)")
_NEXT = re.compile(r"[\s\"'“”‘’«»(\[{*_`#>–—•-]*(\S)")
_OPENING = "\"'“”‘’«»([{*_`#>"
_QUOTATION = "\"'”’»"
_NUMBER = re.compile(r"\d+(?:[.:,/–-]\d+)*")
_ROMAN = re.compile(r"[IVXLC]+")


def split_sentences(text: str, rules: Rules) -> list[str]:
    """Return the sentences of a text, each stripped; pieces without a letter or digit are none."""
    pieces = []
    start = 0
    for stop in _STOP.finditer(text):
        if _ends(text, start, stop, rules):
            pieces.append(text[start : stop.end()])
            start = stop.end()
    pieces.append(text[start:])
    return [piece.strip() for piece in pieces if any(character.isalnum() for character in piece)]


def _ends(text: str, start: int, stop: re.Match[str], rules: Rules) -> bool:
    """Tell whether the sentence from `start` on ends at a stop."""
    following = _NEXT.match(text, stop.end())
    if following is None:
        return True
    after = following[1]
    signs = stop[0].removesuffix(stop["closing"])
    if after.islower() and any(sign in _QUOTATION for sign in stop["closing"]):
        return False
    if "!" in signs or "?" in signs:
        return True
    if signs != ".":
        return after.isupper()
    line = max(start, text.rfind("\n", 0, stop.start()) + 1)
    return _period_ends(text[line : stop.start()], after, rules)


def _period_ends(before: str, after: str, rules: Rules) -> bool:
    """Tell whether a sentence ends at a single period.

    Args:
        before: The sentence up to the period, from the beginning of its last line on.
        after: The first character of the next word.
        rules: Those of the language.
    """
    words = before.split()
    word = words[-1].lstrip(_OPENING) if words and not before[-1].isspace() else ""
    if _NUMBER.fullmatch(word):
        if not rules.ordinals:
            return not after.islower()
        in_a_list = not any(character.isalnum() for character in "".join(words[:-1]))
        return after.isupper() and not in_a_list
    if rules.ordinals and _ROMAN.fullmatch(word):
        return after.isupper()
    small = word.lower()
    if small in rules.before_number and after.isdigit():
        return False
    if small in rules.never_final:
        return False
    if small in rules.perhaps_final:
        return after.isupper()
    if len(word) == 1 and word.isalpha():
        return _letter_ends(word, after, rules)
    return True


def _letter_ends(letter: str, after: str, rules: Rules) -> bool:
    """Tell whether a sentence ends after a single letter: an initial, `s.` for a page, or the pronoun `I`."""
    if letter == "I" and not rules.ordinals:
        return True
    if letter.isupper():
        return False
    return after.isupper() or not rules.ordinals
