"""What languages are called in the prompts that ask for a translation."""

from __future__ import annotations

from typing import NamedTuple

from posttrain.data.rows import SEVERAL_LANGUAGES, UNKNOWN_LANGUAGE
from posttrain.data.sources import phrasings

# Besides the languages of Europarl: English name, Finnish elative ("from") and translative ("into").
_MORE = {
    "ar": ("Arabic", "arabiasta", "arabiaksi"),
    "hi": ("Hindi", "hindistä", "hindiksi"),
    "is": ("Icelandic", "islannista", "islanniksi"),
    "ja": ("Japanese", "japanista", "japaniksi"),
    "ko": ("Korean", "koreasta", "koreaksi"),
    "no": ("Norwegian", "norjasta", "norjaksi"),
    "ru": ("Russian", "venäjästä", "venäjäksi"),
    "se": ("Northern Sámi", "pohjoissaamesta", "pohjoissaameksi"),
    "tr": ("Turkish", "turkista", "turkiksi"),
    "uk": ("Ukrainian", "ukrainasta", "ukrainaksi"),
    "vi": ("Vietnamese", "vietnamista", "vietnamiksi"),
    "zh": ("Chinese", "kiinasta", "kiinaksi"),
}
_NAMES = phrasings.NAMES | _MORE


class Direction(NamedTuple):
    """The two languages of a translation, as the sentence of a prompt needs them; no source where it is not known."""

    source: str | None
    target: str


def direction(source: str, target: str, prompt_language: str) -> Direction:
    """Return how a prompt in English or Finnish calls two languages; those without a name, by their codes."""
    if source in (UNKNOWN_LANGUAGE, SEVERAL_LANGUAGES):
        return Direction(None, _name(target, prompt_language, 2))
    return Direction(_name(source, prompt_language, 1), _name(target, prompt_language, 2))


def _name(code: str, prompt_language: str, case: int) -> str:
    finnish = prompt_language == "fi"
    if code in _NAMES:
        return _NAMES[code][case if finnish else 0]
    return f"{code}-{('kielestä', 'kielelle')[case - 1]}" if finnish else code
