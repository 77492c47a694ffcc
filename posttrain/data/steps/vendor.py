"""Refuse rows whose answer gives another maker's model for its author."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick

from posttrain.data.rows import Row
from posttrain.data.steps.base import Rejected, Result, answers
from posttrain.data.steps.phrases import any_of, phrases, plain_apostrophes
from posttrain.recipe.schema_data import VendorFilter

_SHOWN = 80
_REACH = 250  # characters before and after a name in which an assistant may speak of itself

# English. Only words that describe an assistant may stand between "I am" and the name, so that "I am a fan of Claude
# Monet" is none.
_AI = (
    r"(?:an?|the|just|only|actually|your|ai|a\.i\.|artificial|intelligence|intelligent|language|large|big|model|based|on|"
    r"chat|chatbot|bot|assistant|virtual|digital|conversational|helpful|friendly|machine|learning|program|computer|"
    r"system|software|generative|pre-?trained|transformer|powered|by|called|named|known|as|version|of|from|trained|"
    r"developed|created|made|multimodal|open|source|open-source|free|text|text-based|advanced|instance|variant|"
    r"fine-tuned|finetuned|and|my|name|is|i'm|i|am|llm|ai-powered|ai-based)"
)
_I_AM = rf"\b(?:i\s+am|i'm|i\s+was|my\s+name\s+is|call\s+me|this\s+is)\b(?:[\s,(]+{_AI}){{0,12}}[\s,(]+"
_I_AM_AI = r"\b(?:i\s+am|i'm)\s+(?:an?\s+)?(?:ai|artificial\s+intelligence|virtual|digital|language|large)\b"
_MADE = (
    r"(?:train|develop|creat|design|program|power|fine-?tun|provid|own|releas|engineer)(?:ed|d|ned)|made|built|"
    r"brought\s+to\s+life|maintained|run|operated"
)
_BY = (
    r"by\s+(?:(?:the|a|an|researchers?|engineers?|scientists?|developers?|team|people|folks|company|at|of|from|"
    r"private|american|ai|research|lab|organi[sz]ation|group|called|named)\s+)*"
)
_SELF = (
    r"(?:i\s+am|i'm|i\s+was|i\s+have\s+been|i've\s+been|me,|as\s+an?\s+(?:large\s+|big\s+)?"
    r"(?:ai|artificial\s+intelligence|language\s+model|chatbot|assistant|virtual\s+assistant))"
)
_NOT_SELF = r"(?!\b(?:sure|certain|aware|told|thinking|talking|reading|using|not\s+sure)\b)"
_SENTENCE = r"[^!?\n.]"

# Finnish: the name is inflected, "olen OpenAI:n kehittämä".
_AI_FI = (
    r"(?:vain|avoin|suuri|laaja|tekoäly\w*|kieli\w*|malli\w*|avustaja|avustajana|chatbot|chatbotti|botti|virtuaali\w*|"
    r"virtuaalinen|keskustelu\w*|niminen|nimeltäni|nimeltään|nimeni|on|ja|koulutettu|pohjautuva|perustuva|se|joka|"
    r"ystävällinen|avulias|tietokoneohjelma|ohjelma|eräänlainen|versio)"
)
_I_AM_FI = rf"\b(?:olen|nimeni\s+on|minä\s+olen|minun\s+nimeni\s+on)\b(?:[\s,(]+{_AI_FI}){{0,8}}[\s,(]+"
_MADE_FI = r"(?:kehittä|luo|koulutta|rakenta|suunnittele|ohjelmoi|tuotta|julkaise|valmista|omista|teke)m\w+"
_DID_FI = r"(?:kehitti|loi|koulutti|rakensi|suunnitteli|ohjelmoi|kehittänyt|luonut|kouluttanut|rakentanut|suunnitellut)"
_SELF_FI = r"(?:olen|minut|minua|tekoälynä|tekoälymallina|kielimallina|tekoälyavustajana)"
_CASE_FI = r"(?:[:'][a-zäö]{1,4}|[a-zäö]{1,3})?"
_AI_SIGN = r"\b(?:ai|artificial|language\s+model|assistant|chatbot|tekoäly\w*|kielimalli\w*|avustaja\w*|chatbot\w*)\b"


class Vendor:
    """Refuses a row where an answer, of a pair the chosen one, says it is another maker's model.

    It looks for an assistant speaking of itself, in English or Finnish: "I am ChatGPT", "as an AI developed by OpenAI",
    "OpenAI trained me", "olen OpenAI:n kehittämä". Text about those makers and models is let through. Names are in
    `data/phrases/vendor.yaml`; the recipe's own count both as models and as makers.
    """

    name = "vendor"

    def __init__(self, options: VendorFilter) -> None:
        """Take the recipe's options."""
        lists = phrases("vendor")
        own = [plain_apostrophes(name) for name in options.names if name.strip()]
        every = {*lists["models"], *lists["shared_models"], *lists["makers"], *own}
        self._names = AhoCorasick(sorted({name.lower() for name in every}))
        model, maker = any_of([*lists["models"], *own]), any_of([*lists["makers"], *own])
        shared = any_of(lists["shared_models"])
        self._find = re.compile("|".join(_patterns(model, shared, maker)), re.IGNORECASE)

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row or why it is refused."""
        return [self._judge(row) for row in rows]

    def _judge(self, row: Row) -> Result:
        for answer in answers(row):
            for start, end in self._near_names(answer):
                if found := self._find.search(plain_apostrophes(answer[start:end])):
                    return Rejected(f"speaks as another maker's model: {' '.join(found[0].split())[:_SHOWN]}")
        return row

    def _near_names(self, text: str) -> list[tuple[int, int]]:
        """Return start and end of the stretches around names: the patterns are slow, and few answers have any."""
        lowered = text.lower()
        if len(lowered) != len(text):  # a few signs, such as İ, are two in lower case
            lowered = "".join(sign.lower() if len(sign.lower()) == 1 else sign for sign in text)
        stretches: list[tuple[int, int]] = []
        found = self._names.find_matches_as_indexes(lowered, overlapping=True)
        for place, after in sorted((start, end) for _, start, end in found):
            # In the patterns every name begins a word, and at most three letters of a Finnish case end it.
            ending = lowered[after : after + 4]
            if lowered[place - 1 : place].isalnum() or (len(ending) == 4 and ending.isalpha()):
                continue
            start = _reach_back(text, place)
            end = min(len(text), place + _REACH)
            if stretches and start <= stretches[-1][1]:
                start = stretches.pop()[0]
            stretches.append((start, end))
        return stretches


def _reach_back(text: str, place: int) -> int:
    """Return where to begin reading before a name: at most `_REACH` characters, and not in the middle of a word."""
    start = place - _REACH
    if start <= 0:
        return 0
    blank = text.find(" ", start, place)
    return start if blank < 0 else blank


def _patterns(model: str, shared: str, maker: str) -> list[str]:
    in_sentence = rf"(?:{_NOT_SELF}{_SENTENCE}){{0,80}}?"
    return [
        rf"{_I_AM}{model}(?!\w)",
        rf"{_I_AM}{shared}(?!\w)(?=(?-i:(?!\s+[A-ZÅÄÖ])){_SENTENCE}{{0,60}}?{_AI_SIGN})",
        rf"{_I_AM_AI}(?:[\s,(]+{_AI}){{0,6}}[\s,(]+{shared}(?!\w)",
        rf"\b{_SELF}\b{in_sentence}\b(?:{_MADE})\s+{_BY}{maker}(?!\w)",
        rf"\b{maker}(?:'s)?\s+(?:has\s+)?(?:{_MADE})\s+me\b",
        rf"\bmy\s+(?:creators?|developers?|makers?|trainers?)\s+(?:at|from|is|are|,)\s*{maker}(?!\w)",
        rf"\b(?:i\s+am|i'm)\s+(?:{_AI}\s+)*?{maker}'s\s+(?:{_AI}\s+)*?(?:model|assistant|chatbot|ai)\b",
        rf"{_I_AM_FI}{model}{_CASE_FI}(?!\w)",
        rf"{_I_AM_FI}{shared}(?!\w)(?=(?-i:(?!\s+[A-ZÅÄÖ])){_SENTENCE}{{0,60}}?{_AI_SIGN})",
        rf"\b{_SELF_FI}\b{_SENTENCE}{{0,80}}?\b{maker}{_CASE_FI}\s+(?:\w+\s+){{0,2}}?{_MADE_FI}",
        rf"\b(?:minut|minua)\s+(?:on\s+)?{_DID_FI}\s+(?:\w+\s+){{0,3}}?{maker}(?!\w)",
        rf"\b{maker}\s+(?:on\s+)?{_DID_FI}\s+minu[ta]",
    ]
