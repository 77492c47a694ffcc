"""How a user asks for a translation, in English and in Finnish.

`{source}` and `{target}` stand for the languages as the sentence needs them, `{text}` for what is to be translated.
"""

from __future__ import annotations

# English name, Finnish elative ("from") and translative ("into"), of the languages of Europarl.
NAMES = {
    "bg": ("Bulgarian", "bulgariasta", "bulgariaksi"),
    "cs": ("Czech", "tšekistä", "tšekiksi"),
    "da": ("Danish", "tanskasta", "tanskaksi"),
    "de": ("German", "saksasta", "saksaksi"),
    "el": ("Greek", "kreikasta", "kreikaksi"),
    "en": ("English", "englannista", "englanniksi"),
    "es": ("Spanish", "espanjasta", "espanjaksi"),
    "et": ("Estonian", "virosta", "viroksi"),
    "fi": ("Finnish", "suomesta", "suomeksi"),
    "fr": ("French", "ranskasta", "ranskaksi"),
    "hu": ("Hungarian", "unkarista", "unkariksi"),
    "it": ("Italian", "italiasta", "italiaksi"),
    "lt": ("Lithuanian", "liettuasta", "liettuaksi"),
    "lv": ("Latvian", "latviasta", "latviaksi"),
    "nl": ("Dutch", "hollannista", "hollanniksi"),
    "pl": ("Polish", "puolasta", "puolaksi"),
    "pt": ("Portuguese", "portugalista", "portugaliksi"),
    "ro": ("Romanian", "romaniasta", "romaniaksi"),
    "sk": ("Slovak", "slovakista", "slovakiksi"),
    "sl": ("Slovenian", "sloveenista", "sloveeniksi"),
    "sv": ("Swedish", "ruotsista", "ruotsiksi"),
}

ENGLISH = (
    "Translate the following text into {target}:\n\n{text}",
    "Translate this from {source} into {target}:\n\n{text}",
    "What is the following in {target}?\n\n{text}",
    "I need this passage in {target}:\n\n{text}",
    "{text}\n\nHow would you say that in {target}?",
    "Here is some {source} text. Write it in {target}.\n\n{text}",
    "Could you put this into natural {target} for me?\n\n{text}",
    "{source} to {target}, please: {text}",
)
FINNISH = (
    "Käännä seuraava teksti {target}:\n\n{text}",
    "Käännä tämä {source} {target}:\n\n{text}",
    "Miten tämä sanotaan {target}?\n\n{text}",
    "Voisitko kääntää alla olevan tekstin {target}?\n\n{text}",
    "{text}\n\nKirjoita yllä oleva {target}.",
    "Mitä seuraava on {target}?\n\n{text}",
    "Tarvitsen tästä käännöksen {source} {target}:\n\n{text}",
    "Esitä sama asia {target}: {text}",
)
COUNT = len(ENGLISH) + len(FINNISH)


def ask(choice: int, source: str, target: str, text: str) -> tuple[str, str]:
    """Ask for a translation of `text` in phrasing number `choice` of `COUNT`.

    Returns:
        The question, and the phrasing's name: the language of the question and a number, such as `fi3`.
    """
    if choice < len(ENGLISH):
        names, phrasing, called = (NAMES[source][0], NAMES[target][0]), ENGLISH[choice], f"en{choice + 1}"
    else:
        place = choice - len(ENGLISH)
        names, phrasing, called = (NAMES[source][1], NAMES[target][2]), FINNISH[place], f"fi{place + 1}"
    return phrasing.format(source=names[0], target=names[1], text=text), called
