"""Which language a text is in, by heliport, a port of HeLI-OTS (Jauhiainen et al. 2022, 2022.lrec-1.416).

Its models take 1.9 s to load and 940 MB, so a process has one, and processes forked from one that imported
`identifier_preload` share it. Only methods that start no threads are used, which a fork would not keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

from posttrain.errors import UserError

if TYPE_CHECKING:
    from heliport import Identifier

_ALL = 300  # more languages than it knows

# How much worse than the best guess a likely language may score. Scores are negative decimal logarithms of relative
# frequencies, averaged over words. Measured on 18,800 Finnish and English texts, many of them machine translations,
# names left out as `language.telling_words` does: at 0.6 the stated language is confirmed for 99.7%, and text in the
# other one is taken for it in 0.6%. Danish and Norwegian are 0.3 to 1 apart, so either may pass for the other.
MARGIN = 0.6

_COMMON = (
    "ar", "cs", "da", "de", "en", "es", "et", "fi", "fr", "hi", "id", "it", "ja", "ko", "nl", "no", "pl", "pt", "ru",
    "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
_WORST = 7.0  # the score of a language that has none of a text's words and letter sequences
_UNDECIDED = frozenset({"und", "zxx"})  # undetermined; no linguistic content

# heliport's codes, ISO 639-3 and collections of them, by the project's: ISO 639-1 where there is one.
_KNOWN_AS = {
    "ab": "abk", "af": "afr", "am": "amh", "an": "arg", "ar": "ara", "as": "asm", "ay": "ayr", "az": "aze", "ba": "bak",
    "be": "bel", "bg": "bul", "bn": "ben", "bo": "bod", "br": "bre", "bs": "hbs", "ca": "cat", "ce": "che", "co": "cos",
    "cs": "ces", "cv": "chv", "cy": "cym", "da": "dan", "de": "deu", "dv": "div", "ee": "ewe", "el": "ell", "en": "eng",
    "eo": "epo", "es": "spa", "et": "est", "eu": "eus", "fa": "pes", "fi": "fin", "fj": "fij", "fo": "fao", "fr": "fra",
    "fy": "fry", "ga": "gle", "gd": "gla", "gl": "glg", "gn": "grn", "gu": "guj", "gv": "glv", "he": "heb", "hi": "hin",
    "ho": "hmo", "hr": "hbs", "ht": "hat", "hu": "hun", "hy": "hye", "ia": "ina", "id": "msa", "ig": "ibo", "io": "ido",
    "is": "isl", "it": "ita", "iu": "iku", "ja": "jpn", "ka": "kat", "kk": "kaz", "kl": "kal", "km": "khm", "kn": "kan",
    "ko": "kor", "kr": "knc", "ku": "kmr", "kv": "kpv", "kw": "cor", "ky": "kir", "la": "lat", "lb": "ltz", "lg": "lug",
    "ln": "lin", "lo": "lao", "lt": "lit", "lv": "lav", "mg": "mlg", "mi": "mri", "mk": "mkd", "ml": "mal", "mn": "mon",
    "mr": "mar", "ms": "msa", "mt": "mlt", "my": "mya", "nb": "nob", "ne": "nep", "nl": "nld", "nn": "nno", "nv": "nav",
    "oc": "oci", "om": "gaz", "or": "ori", "os": "oss", "pa": "pan", "pi": "pli", "pl": "pol", "ps": "pbt", "pt": "por",
    "qu": "que", "rm": "roh", "ro": "ron", "ru": "rus", "sa": "san", "sc": "srd", "sd": "snd", "se": "sme", "sg": "sag",
    "si": "sin", "sk": "slk", "sl": "slv", "sn": "sna", "so": "som", "sq": "sqi", "sr": "hbs", "st": "sot", "sv": "swe",
    "sw": "swa", "ta": "tam", "te": "tel", "tg": "tgk", "th": "tha", "ti": "tir", "tk": "tuk", "tl": "tgl", "tr": "tur",
    "ts": "tso", "tt": "tat", "tw": "twi", "ug": "uig", "uk": "ukr", "ur": "urd", "uz": "uzn", "vi": "vie", "vo": "vol",
    "wa": "wln", "yi": "yid", "yo": "yor", "zh": "cmn", "zu": "zul",
}  # fmt: skip
_SEVERAL = {"no": ("nob", "nno"), "hrv": ("hbs",), "srp": ("hbs",), "bos": ("hbs",), "ind": ("msa",), "zsm": ("msa",)}
# The other way round where it is not one to one: the collections keep their own code, Norwegian is one language.
_CALLED = {code: name for name, code in _KNOWN_AS.items()} | {"hbs": "hbs", "msa": "id", "nob": "no", "nno": "no"}


@cache
def identifier() -> Identifier:
    """Return this process's identifier, loaded at the first call.

    Raises:
        UserError: heliport is not installed.
    """
    check_installed("this", "leave out what asks for it")
    from heliport import Identifier

    return Identifier()


def is_installed() -> bool:
    """Say whether there is something to identify languages with, without loading it."""
    return find_spec("heliport") is not None


def check_installed(key: str, instead: str) -> None:
    """Check that there is something to identify languages with, without loading it.

    Args:
        key: What needs it, for the message.
        instead: What to do in place of installing it.

    Raises:
        UserError: heliport is not installed.
    """
    if not is_installed():
        raise UserError(
            f"{key}: the package heliport is not installed, which tells languages; run "
            f"`pip install -c constraints.txt -e '.[language]'`, or {instead}"
        )


@cache
def is_known(language: str) -> bool:
    """Tell whether texts in a language can be told from others."""
    known = identifier().get_confidence_all()
    return any(code in known for code in _codes(language))


def identify(text: str, likely: Sequence[str] = ()) -> str | None:
    """Return the language of a text.

    Args:
        text: Without code; a sentence or more.
        likely: Languages that it is expected to be in. Where the best guess is another, the best of these is taken if
            it scores at most `MARGIN` worse: short texts and lists of names look like many languages. Failing that, a
            common language is preferred to a rare one in the same way.

    Returns:
        An ISO 639 code, of two letters where there is one, or as `likely` has it; None where nothing can be told.
    """
    best = identifier().identify(text, True)  # without thresholds of confidence: it always decides
    if best in _UNDECIDED:
        return None
    for language in likely:
        if best in _codes(language):
            return language
    named: str = _CALLED.get(best, best)
    if named in _COMMON and not likely:
        return named
    scores: dict[str, float] = dict(identifier().identify_topk_with_score(text, _ALL))
    for languages in (likely, () if named in _COMMON else _COMMON):
        found = {language: min(scores.get(code, _WORST) for code in _codes(language)) for language in languages}
        closest = min(found, key=lambda language: found[language], default=None)
        if closest is not None and found[closest] <= scores[best] + MARGIN:
            return closest
    return named


def same(one: str, other: str) -> bool:
    """Tell whether two codes are of languages that are not told apart, such as Croatian and Serbian."""
    return one == other or not _codes(one).isdisjoint(_codes(other))


@cache
def _codes(language: str) -> frozenset[str]:
    """Return heliport's codes of a language."""
    return frozenset(_SEVERAL.get(language) or (_KNOWN_AS.get(language, language),))
