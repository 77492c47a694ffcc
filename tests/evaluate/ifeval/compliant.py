"""Responses that follow an instruction, whatever its arguments, made from the arguments alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posttrain.evaluate.ifeval.base import LESS_THAN

_FILLER = {"en": "The lake is calm and the boat is red.", "fi": "Järvi on tyyni ja vene on punainen."}
_WORD = {"en": "boat", "fi": "vene"}
_POSTSCRIPT = {"en": "Thank you for the fish.\n\n{} Come again.", "fi": "Kiitos kalasta.\n\n{} Tule taas."}
_ANSWER = {"en": "My answer is maybe.", "fi": "Vastaukseni on ehkä."}

# A sentence in each language that a prompt of the tests may demand.
SENTENCES = {
    "ar": "اللغة العربية لغة جميلة ويتحدث بها الكثير من الناس.",
    "bg": "България е красива страна и хората говорят български език.",
    "bn": "বাংলাদেশ একটি সুন্দর দেশ এবং এখানে অনেক নদী আছে।",
    "de": "Deutschland ist ein Land in Europa und viele Menschen sprechen Deutsch.",
    "en": "The lake is calm and the boat is red.",
    "fa": "ایران کشوری زیبا است و مردم آن فارسی صحبت می‌کنند.",
    "fi": "Järvi on tyyni ja vene on punainen.",
    "gu": "ગુજરાત ભારતનું એક રાજ્ય છે અને અહીં ગુજરાતી બોલાય છે.",
    "hi": "भारत एक विशाल देश है और यहाँ कई भाषाएँ बोली जाती हैं।",
    "it": "L'Italia è un bel paese e molte persone parlano italiano.",
    "ja": "日本は美しい国で、多くの人が日本語を話します。",
    "kn": "ಕರ್ನಾಟಕವು ಭಾರತದ ಒಂದು ರಾಜ್ಯವಾಗಿದೆ ಮತ್ತು ಬೆಂಗಳೂರು ಅದರ ರಾಜಧಾನಿ.",
    "ko": "한국은 아름다운 나라이며 많은 사람들이 한국어를 사용합니다.",
    "mr": "महाराष्ट्र हे भारतातील एक मोठे राज्य आहे आणि मुंबई ही त्याची राजधानी आहे.",
    "ne": "नेपाल एक सुन्दर देश हो जहाँ धेरै हिमालहरू छन्।",
    "pa": "ਪੰਜਾਬ ਇੱਕ ਸੁੰਦਰ ਰਾਜ ਹੈ ਜਿੱਥੇ ਪੰਜ ਨਦੀਆਂ ਵਗਦੀਆਂ ਹਨ।",
    "pt": "Portugal é um país bonito e muitas pessoas falam português.",
    "ru": "Россия большая страна, и многие люди говорят по-русски.",
    "sv": "Sverige är ett vackert land och många talar svenska.",
    "sw": "Tanzania ni nchi nzuri na watu wengi wanazungumza Kiswahili.",
    "ta": "தமிழ் ஒரு பழமையான மொழி ஆகும் மற்றும் பலர் பேசுகிறார்கள்.",
    "te": "తెలుగు ఒక అందమైన భాష మరియు చాలా మంది మాట్లాడతారు.",
    "th": "ประเทศไทยเป็นประเทศที่สวยงามและมีอาหารอร่อยมาก",
    "ur": "پاکستان ایک خوبصورت ملک ہے اور یہاں اردو بولی جاتی ہے۔",
    "vi": "Việt Nam là một đất nước xinh đẹp và có nhiều món ăn ngon.",
}


def compliant(name: str, arguments: Mapping[str, Any], language: str) -> str:
    """Return a response that follows an instruction of an id, in a language's rules."""
    return _RESPONSES[name](arguments, language)


def _count(relation: str, threshold: int) -> int:
    """Return the number nearest to the threshold that is still right."""
    return threshold - 1 if relation == LESS_THAN else threshold


def _repeated(text: str, count: int, otherwise: str = "…1") -> str:
    """Return a text so many times; where that is never, something else, since a blank response follows nothing."""
    return " ".join([text] * count) if count else otherwise


def _paragraphs(arguments: Mapping[str, Any], language: str) -> str:
    paragraphs = [_FILLER[language]] * arguments["num_paragraphs"]
    paragraphs[arguments["nth_paragraph"] - 1] = f'"{arguments["first_word"].capitalize()}", {_FILLER[language]}'
    return "\n\n".join(paragraphs)


_RESPONSES: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "keywords:existence": lambda a, _: ", ".join(a["keywords"]).upper(),
    "keywords:frequency": lambda a, _: _repeated(a["keyword"].title(), _count(a["relation"], a["frequency"])),
    "keywords:forbidden_words": lambda a, _: "".join(f"x{word}x " for word in a["forbidden_words"]),
    "keywords:letter_frequency": lambda a, _: _repeated(
        a["letter"].upper(), _count(a["let_relation"], a["let_frequency"])
    ),
    "language:response_language": lambda a, _: SENTENCES[a["language"]],
    "length_constraints:number_sentences": lambda a, lang: _repeated(
        _FILLER[lang], _count(a["relation"], a["num_sentences"])
    ),
    "length_constraints:number_words": lambda a, lang: _repeated(
        _WORD[lang], _count(a["relation"], a["num_words"]), "…"
    ),
    "length_constraints:number_paragraphs": lambda a, lang: "\n***\n".join([_FILLER[lang]] * a["num_paragraphs"]),
    "length_constraints:nth_paragraph_first_word": _paragraphs,
    "detectable_content:number_placeholders": lambda a, lang: _repeated(f"[{_WORD[lang]}]", a["num_placeholders"]),
    "detectable_content:postscript": lambda a, lang: _POSTSCRIPT[lang].format(a["postscript_marker"]),
    "detectable_format:number_bullet_lists": lambda a, lang: "\n".join([f"* {_FILLER[lang]}"] * a["num_bullets"]),
    "detectable_format:title": lambda a, lang: f"<<{_WORD[lang]}>>\n\n{_FILLER[lang]}",
    "detectable_format:constrained_response": lambda a, lang: _ANSWER[lang],
    "detectable_format:number_highlighted_sections": lambda a, lang: _repeated(
        f"*{_WORD[lang]}* **{_WORD[lang]}**", (a["num_highlights"] + 1) // 2
    ),
    "detectable_format:multiple_sections": lambda a, lang: "\n".join(
        f"{a['section_spliter']} {number}\n{_FILLER[lang]}" for number in range(1, a["num_sections"] + 1)
    ),
    "detectable_format:json_format": lambda a, lang: f'```json\n{{"{_WORD[lang]}": [1, 2.5, null]}}\n```',
    "combination:repeat_prompt": lambda a, lang: f"{a['prompt_to_repeat']}\n\n{_FILLER[lang]}",
    "combination:two_responses": lambda a, lang: f"{_FILLER[lang]}\n******\n{_WORD[lang]}",
    "startend:end_checker": lambda a, lang: f"{_FILLER[lang]} {a['end_phrase']}",
    "startend:quotation": lambda a, lang: f'"{_FILLER[lang]}"',
    "change_case:capital_word_frequency": lambda a, lang: _repeated(
        _WORD[lang].upper(), _count(a["capital_relation"], a["capital_frequency"]), _WORD[lang]
    ),
    "change_case:english_capital": lambda a, lang: _FILLER[lang].upper(),
    "change_case:english_lowercase": lambda a, lang: _FILLER[lang].lower(),
    "punctuation:no_comma": lambda a, lang: _FILLER[lang],
}
