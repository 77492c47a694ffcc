"""Whether a response is in a language, by heliport.

Code, links, formulas and tags are left out, and case does not matter. What is left is judged so:

- no letter at all, as in an answer that is all code or all numbers: the instruction counts as followed;
- fewer than `MIN_LETTERS` letters: followed if most of them are of a script that the language is written in. So `OK` is
  good English, Finnish or Vietnamese, but not Hindi;
- otherwise heliport decides, see `posttrain.data.steps.identifier.identify`, the language asked for being the likely
  one. Names decide only where there is little else.

Of Finnish and English sentences with 10 to 14 letters, as written, in capitals and in small letters, 98.5% or more are
taken for what they are, and 0.3% for the other of the two (1,740 texts).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping

from posttrain.data.languages import language_code
from posttrain.data.steps.identifier import identify, is_known, same
from posttrain.data.steps.language import prose, telling_words

MIN_LETTERS = 10
CROP = 10_000  # characters that are read

_SCRIPTS: Mapping[tuple[str, ...], str] = {
    ("ARABIC",): "ar fa ps sd ug ur",
    ("ARMENIAN",): "hy",
    ("BENGALI",): "as bn",
    ("CJK",): "zh",
    ("CYRILLIC",): "be bg kk ky mk mn ru tg uk",
    ("CYRILLIC", "LATIN"): "az bs hr sr tk uz",
    ("DEVANAGARI",): "hi mr ne sa",
    ("ETHIOPIC",): "am ti",
    ("GEORGIAN",): "ka",
    ("GREEK",): "el",
    ("GUJARATI",): "gu",
    ("GURMUKHI",): "pa",
    ("HANGUL",): "ko",
    ("HEBREW",): "he yi",
    ("HIRAGANA", "KATAKANA", "CJK"): "ja",
    ("KANNADA",): "kn",
    ("KHMER",): "km",
    ("LAO",): "lo",
    ("MALAYALAM",): "ml",
    ("MYANMAR",): "my",
    ("ORIYA",): "or",
    ("SINHALA",): "si",
    ("TAMIL",): "ta",
    ("TELUGU",): "te",
    ("THAI",): "th",
    ("TIBETAN",): "bo dz",
}
_SCRIPTS_OF = {language: scripts for scripts, languages in _SCRIPTS.items() for language in languages.split()}
_LATIN = ("LATIN",)


def is_in_language(response: str, language: str) -> bool:
    """Tell whether a response is in a language.

    Args:
        response: Any text.
        language: An ISO 639 code or an English name.

    Raises:
        UserError: heliport is not installed, and the response is long enough to need it.
    """
    text = prose([response], CROP)
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return True
    code = language_code(language)
    if len(letters) < MIN_LETTERS:
        scripts = Counter(_script(letter) for letter in letters)
        return 2 * sum(scripts[name] for name in _SCRIPTS_OF.get(code, _LATIN)) > len(letters)
    if 2 * sum(letter.islower() for letter in letters) > len(
        letters
    ):  # else capitals, or a script without, tell no name
        text = telling_words(text, MIN_LETTERS) or text
    found = identify(text, (code,))
    return found is not None and same(found, code)


def can_be_told(language: str) -> bool:
    """Tell whether heliport knows a language, given as a code or an English name; loads it."""
    return is_known(language_code(language))


def _script(letter: str) -> str:
    """Return the script of a letter, by the first word of its name: `LATIN`, `CJK`."""
    return unicodedata.name(letter, "").split(" ", 1)[0]
