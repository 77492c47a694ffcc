"""Names and codes of natural languages, as datasets spell them, brought to one form."""

from __future__ import annotations

import re
from typing import Any

from posttrain.data.rows import UNKNOWN_LANGUAGE

# English name and ISO 639-3 code by ISO 639-1 code.
_LANGUAGES = {
    "ar": ("arabic", "ara"),
    "cs": ("czech", "ces"),
    "da": ("danish", "dan"),
    "de": ("german", "deu"),
    "en": ("english", "eng"),
    "es": ("spanish", "spa"),
    "et": ("estonian", "est"),
    "fi": ("finnish", "fin"),
    "fr": ("french", "fra"),
    "hi": ("hindi", "hin"),
    "id": ("indonesian", "ind"),
    "it": ("italian", "ita"),
    "ja": ("japanese", "jpn"),
    "ko": ("korean", "kor"),
    "nl": ("dutch", "nld"),
    "no": ("norwegian", "nor"),
    "pl": ("polish", "pol"),
    "pt": ("portuguese", "por"),
    "ru": ("russian", "rus"),
    "sv": ("swedish", "swe"),
    "th": ("thai", "tha"),
    "tr": ("turkish", "tur"),
    "uk": ("ukrainian", "ukr"),
    "vi": ("vietnamese", "vie"),
    "zh": ("chinese", "zho"),
}
_CODES = {name: code for code, names in _LANGUAGES.items() for name in names}


def language_code(value: Any) -> str:
    """Return the ISO 639 code of a language given as a name or a code: `EN`, `English`, `eng_Latn`, `pt-BR`.

    A code of two or three letters that the table lacks is kept; anything else is `und`.
    """
    if not isinstance(value, str):
        return UNKNOWN_LANGUAGE
    name = re.split(r"[_-]", value.strip().lower(), maxsplit=1)[0]
    return _CODES.get(name, name if re.fullmatch(r"[a-z]{2,3}", name) else UNKNOWN_LANGUAGE)
