"""How personal data is recognised, with its check digits where it has any.

A mask is `mask(text, mark) -> (text, count)`. Everything here is linear in the length of the text. Patterns
look back after their first character: a pattern that begins with a set of characters is several times faster to search.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

Mask: TypeAlias = Callable[[str, str], tuple[str, int]]

_DIGIT_RUN = re.compile(r"[0-9](?:[ \u00a0()./–-]{0,3}[0-9]){5}")
_EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9ÅÄÖåäö_%+][\w.%+-]{0,63}@"
    r"(?:[A-Za-z0-9ÅÄÖåäö-]{1,63}\.){1,6}[A-Za-z]{2,24}(?![\w-]|\.\w)"
)

# Day, month and year of birth, century sign, individual number, check sign. The signs Y X W V U and B C D E F came into
# use in 2023, beside - and A.
_PERSONAL_ID = re.compile(
    r"((?:0[1-9]|[12]\d|3[01])(?<![\w-]..)(?:0[1-9]|1[0-2])\d{2})[-–+A-FU-Ya-fu-y](\d{3})([0-9A-Ya-y])(?![\w]|-\d)"
)
_CHECK_SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"  # no G I O Q Z

_IBAN = re.compile(r"[A-Z](?<![A-Za-z0-9].)[A-Z]\d{2}(?=[ \u00a0]?[A-Z0-9]{4})")
# Characters of an IBAN by country: SWIFT's IBAN registry.
_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE", "BI"), 16),
    **dict.fromkeys(("DK", "FI", "FK", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("CH", "CR", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BF", "CI", "CM", "DJ", "DZ", "FR", "GR", "IT", "MC", "MR", "SM", "SN"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "EG", "GT", "HN", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    "LC": 32,
    "RU": 33,
}

# Country codes of E.164, so that a sum with a plus sign is less often taken for a number.
_COUNTRY = (
    r"(?:1|7|20|27|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-689]\d|3[578]\d|42\d|50\d|59\d|67\d|68\d|69\d|"
    r"80\d|85\d|87\d|88\d|96\d|97\d|99\d)"
)
_GAP = r"[ \u00a0.–-]?"
_END = r"(?![\w]|[-.,/]\d)"
_INTERNATIONAL = re.compile(
    rf"(?:\+(?<![\w+.,/-].)|0(?<![\w+.,/-].)0(?=358|44|46|47|45|49|372)){_COUNTRY}{_GAP}(?:\(0\){_GAP})?"
    rf"(?:\(\d{{1,4}}\){_GAP})?\d(?:{_GAP}\d){{5,12}}{_END}"
)
# Finnish mobile numbers begin with 04 or 050. Digits alone are too often something else for the rest, which needs gaps
# as they are written, or a word for telephone before it.
_BEFORE = r"(?<![\w+.,-].)(?<!\d[ \u00a0].)"
_AFTER = r"(?![\w]|[-.,]\d|[ \u00a0]?[€%])"
_BLANK = r"[ \u00a0-]?"
_MOBILE = re.compile(rf"(?:\({_BEFORE}0(?:4\d|50)\)|0{_BEFORE}(?:4\d|50)){_BLANK}\d(?:{_BLANK}\d){{5,7}}{_AFTER}")
_AREA = r"(?:[2356789]|1[3-9])"
_LANDLINE = re.compile(
    rf"(?:\({_BEFORE}0{_AREA}\){_BLANK}|0{_BEFORE}{_AREA}[ \u00a0-])\d{{3,4}}(?:{_BLANK}\d{{2,4}}){{1,2}}{_AFTER}"
)
_SERVICE = re.compile(
    rf"0{_BEFORE}(?:10|20|29|30|600|700|800)[ \u00a0-]\d{{2,4}}(?:[ \u00a0-]\d{{2,4}}){{1,2}}{_AFTER}"
)
_AMERICAN = re.compile(
    r"[(0-9](?<![\w+.,-].)(?:(?<=\()\d{3}\) ?|(?<=1)[ -](?:\(\d{3}\) ?|\d{3}[-.])|(?<=\d)\d{2}[-.])"
    rf"\d{{3}}[-.]\d{{4}}{_END}"
)
_NAMES = ("puh", "gsm", "tel", "phone", "mobile", "fax", "faksi")
_NAMED = re.compile(
    r"(?<!\w)((?:puh(?:elin(?:numero\w*)?)?|gsm|tel(?:ephone)?|phone(?:\s+number)?|mobile|fax|faksi)\.?\s*"
    rf"(?:no\.?|number|is|on)?\s*:?\s*)(\+?\(?\d\)?(?:[ \u00a0()./-]{{0,2}}\d){{5,14}}){_END}",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:\d{1,2}[-./ ]){2}(?:19|20)\d\d\Z|(?:19|20)\d\d[-./ ]\d{1,2}[-./ ]\d{1,2}\Z")
_DIGITS = re.compile(r"\d+")


def may_have_pii(text: str) -> bool:
    """Tell quickly whether a text may hold anything that is masked: it has an at sign, a run of digits or an IBAN."""
    if "@" in text:
        return True
    if not any(digit in text for digit in "0123456789"):
        return False
    return _DIGIT_RUN.search(text) is not None or _IBAN.search(text) is not None


def _mask_email(text: str, mark: str) -> tuple[str, int]:
    return _EMAIL.subn(mark, text) if "@" in text else (text, 0)


def _mask_personal_id(text: str, mark: str) -> tuple[str, int]:
    return _replace(_PERSONAL_ID, text, mark, _is_personal_id)


def _is_personal_id(match: re.Match[str]) -> bool:
    """Check the last sign: the nine digits modulo 31 pick it from a list."""
    number = int(match[2])
    return number >= 2 and _CHECK_SIGNS[int(match[1] + match[2]) % 31] == match[3].upper()


def _mask_iban(text: str, mark: str) -> tuple[str, int]:
    pieces: list[str] = []
    after = count = 0
    for match in _IBAN.finditer(text):
        if match.start() < after or (end := _iban_end(text, match.start())) is None:
            continue
        pieces += [text[after : match.start()], mark]
        after = end
        count += 1
    return "".join([*pieces, text[after:]]), count


def _iban_end(text: str, start: int) -> int | None:
    """Return where the IBAN that starts here ends, if it has its country's length and the right check digits."""
    length = _IBAN_LENGTHS.get(text[start : start + 2])
    if length is None:
        return None
    signs: list[str] = []
    place = start
    while len(signs) < length:
        sign = text[place : place + 1]
        if sign and sign in " \u00a0" and len(signs) % 4 == 0:
            place += 1
            continue
        if not ("A" <= sign <= "Z" or "0" <= sign <= "9"):
            return None
        signs.append(sign)
        place += 1
    if text[place : place + 1].isalnum():
        return None
    # ISO 13616: the first four go to the end, letters become 10 to 35, and the number modulo 97 is 1.
    moved = "".join(signs[4:] + signs[:4])
    return place if int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1 else None


def _mask_phone(text: str, mark: str) -> tuple[str, int]:
    count = 0
    for pattern in (_INTERNATIONAL, _MOBILE, _LANDLINE, _SERVICE, _AMERICAN):
        text, found = _replace(pattern, text, mark, _is_phone)
        count += found

    def named(match: re.Match[str]) -> str:
        nonlocal count
        if not _is_number(match[2]):
            return match[0]
        count += 1
        return match[1] + mark

    lowered = text.lower()
    if any(name in lowered for name in _NAMES):
        text = _NAMED.sub(named, text)
    return text, count


def _is_phone(match: re.Match[str]) -> bool:
    return _is_number(match[0])


def _is_number(text: str) -> bool:
    digits = "".join(_DIGITS.findall(text))
    # A round sum, such as +33 000 000, and a date are none.
    return 6 <= len(digits) <= 17 and set(digits[3:]) != {"0"} and not _DATE.match(text)


def _replace(
    pattern: re.Pattern[str], text: str, mark: str, accept: Callable[[re.Match[str]], bool]
) -> tuple[str, int]:
    count = 0

    def one(match: re.Match[str]) -> str:
        nonlocal count
        if not accept(match):
            return match[0]
        count += 1
        return mark

    return pattern.sub(one, text), count


# In the order in which they are looked for: what has check digits first.
MASKS: dict[str, Mask] = {
    "iban": _mask_iban,
    "fi_personal_id": _mask_personal_id,
    "email": _mask_email,
    "phone": _mask_phone,
}
