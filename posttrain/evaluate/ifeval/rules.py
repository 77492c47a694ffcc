"""What a verifier must know of the language that a prompt is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The conventions of one language.

    Attributes:
        language: Its ISO 639-1 code.
        composed: Whether responses are brought to Unicode's composed form (NFC) first, so that an `ä` written as `a`
            and a combining diaeresis is one letter.
        whole_words: Whether a keyword counts only as a word by itself. In English it counts inside other words too,
            as in the original.
        joiners: Characters that join two parts into one word, such as the hyphen of `linja-auto`, the colon of
            `EU:n` and the apostrophe of `vaa'an`. In English every `\\w+` is a word, as in the original.
        clitics: Whether English contractions are taken apart before words in capitals are counted.
        ordinals: Whether a number with a period is an ordinal: `3. luku`, `6. joulukuuta`.
        answers: The three answers of `detectable_format:constrained_response`.
        quotation_marks: Pairs that may open and close a quotation.
        never_final: Abbreviations, without their last period and in small letters, after which a sentence goes on.
        perhaps_final: Abbreviations that end a sentence where a capital follows.
        before_number: Abbreviations only where a digit follows, words otherwise.
    """

    language: str
    composed: bool
    whole_words: bool
    joiners: str
    clitics: bool
    ordinals: bool
    answers: tuple[str, ...]
    quotation_marks: tuple[tuple[str, str], ...]
    never_final: frozenset[str]
    perhaps_final: frozenset[str]
    before_number: frozenset[str]


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


ENGLISH = Rules(
    language="en",
    composed=False,
    whole_words=False,
    joiners="",
    clitics=True,
    ordinals=False,
    answers=("My answer is yes.", "My answer is no.", "My answer is maybe."),
    quotation_marks=(('"', '"'),),
    never_final=_listed(
        "capt cf col dr e.g gen gov hon i.e lt maj messrs mme mr mrs ms mt prof rep rev sen sgt st u.k u.n u.s u.s.a "
        "viz vs"
    ),
    perhaps_final=_listed(
        "a.d a.m approx apr assn aug ave b.c blvd bros co corp dec dept est etc feb inc jan jr ltd mar nov oct p.m "
        "ph.d sep sept sr"
    ),
    before_number=_listed("art ch eq fig figs no nos p pp sec vol"),
)

FINNISH = Rules(
    language="fi",
    composed=True,
    whole_words=True,
    joiners="-'’:",
    clitics=False,
    ordinals=True,
    answers=("Vastaukseni on kyllä.", "Vastaukseni on ei.", "Vastaukseni on ehkä."),
    quotation_marks=(('"', '"'), ("”", "”"), ("“", "”"), ("»", "»")),
    never_final=_listed(
        "alk ao arv dos ed em engl ent esim fil fra hra huom klo ko ks lat maist ml mm mr mrs ms nk ns nti nyk oik os "
        "po prof puh rva ruots s.o sis st suom syn t.s tm toht toim tri ts vas vrt vs"
    ),
    perhaps_final=_listed(
        "eaa ekr jaa jkr jms jne kk kpl krs lk m.m milj min mrd nro n.s rek sek sp tms vk y.m ym yms"
    ),
    before_number=_listed("art n p s taul v"),
)

LANGUAGES: Mapping[str, Rules] = {rules.language: rules for rules in (ENGLISH, FINNISH)}
