"""Personal data is masked, look-alikes are not; masking twice is masking once."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from posttrain.data.rows import Row, content_id
from posttrain.data.steps.base import Rejected
from posttrain.data.steps.pii import MaskPii
from posttrain.recipe.schema_data import Pii
from tests.data.steps.made import pair, reasons, sft

STEP = MaskPii(Pii())
CHECK_SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"


def mask(text: str, step: MaskPii = STEP) -> tuple[str, dict[str, int]]:
    found: Counter[str] = Counter()
    return step.mask(text, found), dict(found)


def personal_id(birth: str, sign: str, number: str) -> str:
    return birth + sign + number + CHECK_SIGNS[int(birth + number) % 31]


def iban(country: str, account: str) -> str:
    moved = "".join(str(int(sign, 36)) for sign in account + country + "00")
    return f"{country}{98 - int(moved) % 97:02d}{account}"


EMAILS = [
    "maija.meikalainen@example.fi",
    "a+b%c@sub.example.co.uk",
    "MATTI@EXAMPLE.COM",
    "väinö.mäki@esimerkki.fi",
    "x_1@mäki-talo.fi",
]
PHONES = [
    "040 123 4567",
    "0401234567",
    "040-1234567",
    "(040) 123 4567",
    "050 123 45 67",
    "0457 123 4567",
    "+358 40 123 4567",
    "+358401234567",
    "+358 (0)40 123 4567",
    "00358 40 1234567",
    "09 123 4567",
    "(09) 1234 567",
    "014 123 4567",
    "0800 123 456",
    "+46 8 123 456 78",
    "+44 20 7946 0958",
    "+1 (555) 123-4567",
    "(555) 123-4567",
    "555-123-4567",
]
PERSONAL_IDS = [
    *(personal_id("131052", sign, "308") for sign in "+-YXWVUABCDEF"),
    personal_id("010100", "A", "002"),
    personal_id("311299", "-", "899").lower(),
]
IBANS = [
    iban("FI", "12345600000785"),
    "FI21 1234 5600 0007 85",
    "DE89370400440532013000",
    "GB29 NWBK 6016 1331 9268 19",
    "NO9386011117947",
]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("email", value) for value in EMAILS),
        *(("phone", value) for value in PHONES),
        *(("fi_personal_id", value) for value in PERSONAL_IDS),
        *(("iban", value) for value in IBANS),
    ],
)
def test_each_kind_is_masked_wherever_it_stands(kind: str, value: str) -> None:
    mark = f"[{kind.upper()}]"
    for before, after in [
        ("", ""),
        ("Tässä: ", "."),
        ("(", ")"),
        ("a\n", "\nb"),
        ("On ", ", ja"),
        ("“", "”"),
        ("", "!"),
    ]:
        assert mask(before + value + after) == (before + mark + after, {kind: 1})


@pytest.mark.parametrize(
    "text",
    [
        "versio 1.2.3.4 ja 10.0.22631.3527",
        "2023-05-06, 06.05.2023, 6/5/2023, 02-03-2024 ja 05 06 2023",
        "klo 09.15–10.45 ja 09:15:00",
        "ISBN 978-951-0-12345-6 ja ISBN 0-306-40615-2",
        "hinta 1 250 000 € tai $1,234,567.89 tai 0401 €",
        "pii on 3.14159265358979 ja 0.4012345678",
        "192.168.001.100 ja 255.255.255.0",
        "0123456789 1234567890123456",
        "vuosina 1917 1918 1939 1944",
        "+10 000 000 euroa, +33 000 000",
        "131052-308X ja 320152-308T",  # a wrong check sign; no such day
        "FI21 1234 5600 0007 86 ja DE89370400440532013001",  # wrong check digits
        "@app.route ja @käyttäjä ja a@b ja user@localhost",
        "f(0401234567890123)",
        "SHA a0401234567b",
        "x = [040, 123]",
    ],
)
def test_look_alikes_are_left(text: str) -> None:
    assert mask(text) == (text, {})


def test_a_word_for_telephone_makes_a_number_one() -> None:
    assert mask("puh. 019 1234") == ("puh. [PHONE]", {"phone": 1})
    assert mask("Puhelinnumero: 2345678.") == ("Puhelinnumero: [PHONE].", {"phone": 1})
    assert mask("2345678.") == ("2345678.", {})


def test_code_is_left_unless_the_recipe_says_otherwise() -> None:
    text = "a@example.fi\n```\nb@example.fi\n```\nc@example.fi\n~~~\nd@example.fi"
    masked, found = mask(text)
    assert masked == "[EMAIL]\n```\nb@example.fi\n```\n[EMAIL]\n~~~\nd@example.fi"
    assert found == {"email": 2}
    assert mask(text, MaskPii(Pii(code=True)))[1] == {"email": 4}


def test_only_the_kinds_of_the_recipe_are_masked() -> None:
    text = f"{EMAILS[0]} {PHONES[0]} {PERSONAL_IDS[0]} {IBANS[0]}"
    assert mask(text)[1] == {"email": 1, "phone": 1, "fi_personal_id": 1, "iban": 1}
    for kind, value in [("email", EMAILS[0]), ("phone", PHONES[0]), ("iban", IBANS[0])]:
        masked, found = mask(text, MaskPii(Pii(kinds=[kind])))  # type: ignore[list-item]
        assert found == {kind: 1}
        assert masked == text.replace(value, f"[{kind.upper()}]")


def test_masking_twice_is_masking_once() -> None:
    rng = random.Random(0)
    pieces = [*EMAILS, *PHONES, *PERSONAL_IDS, *IBANS, "0", "12", "-", "+", " ", " ", "/", ".", "a", "\n", "FI", "@"]
    for _ in range(2000):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 12)))
        masked, _ = mask(text)
        assert mask(masked) == (masked, {})


def test_a_masked_row_has_the_id_of_its_content_and_counts() -> None:
    row = sft(f"Soita {PHONES[0]} tai {PHONES[1]}", prompt=EMAILS[0], system=EMAILS[1], tree="t")
    [masked] = STEP([row])
    assert not isinstance(masked, Rejected)
    assert masked == sft("Soita [PHONE] tai [PHONE]", prompt="[EMAIL]", system="[EMAIL]", **json.loads(masked.meta))
    assert json.loads(masked.meta) == {"tree": "t", "pii": {"email": 2, "phone": 2}}
    assert masked.units == row.units
    assert STEP([masked]) == [masked]


def test_all_messages_of_a_pair_are_masked() -> None:
    [masked] = STEP([pair(EMAILS[0], PHONES[0], prompt=EMAILS[1])])
    expected = pair("[EMAIL]", "[PHONE]", prompt="[EMAIL]")
    assert not isinstance(masked, Rejected)
    assert masked.id == expected.id != content_id("other")
    assert json.loads(masked.meta) == {"pii": {"email": 2, "phone": 1}}


def test_a_pair_that_differed_in_personal_data_alone_is_refused() -> None:
    rows: list[Row] = [pair(EMAILS[0], EMAILS[1]), pair(EMAILS[0], PHONES[0]), sft("Ei mitään.")]
    assert reasons(STEP, rows) == ["chosen equals rejected: once personal data is masked", None, None]


def test_a_row_without_personal_data_is_the_same_row() -> None:
    row = sft("Ei mitään 12345.")
    assert STEP([row])[0] is row
