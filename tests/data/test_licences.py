from __future__ import annotations

import pytest

from posttrain.data.licences import card, licence
from posttrain.data.sources import SOURCES

KNOWN = [
    "Apache-2.0",
    "MIT",
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-NC-4.0",
    "ODC-BY-1.0",
    "llama3.1",
    "llama3.3",
]


@pytest.mark.parametrize("name", KNOWN)
def test_ids_in_any_case(name: str) -> None:
    found = licence(name)
    assert found.known
    assert found.id == name
    assert licence(name.lower()) is licence(name.upper()) is licence(f" {name} ") is found
    assert found.in_words.startswith(found.name)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("odc-by", "ODC-BY-1.0"), ("cc0", "CC0-1.0"), ("apache", "Apache-2.0"), ("cc-by-nc", "CC-BY-NC-4.0")],
)
def test_aliases(alias: str, name: str) -> None:
    assert licence(alias) is licence(name)


def test_what_forbids_commercial_use_is_said_in_words() -> None:
    for name in ("CC-BY-NC-2.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0"):
        assert licence(name).forbids_commercial_use
        assert "forbids commercial use" in licence(name).in_words
    for name in ("MIT", "CC-BY-SA-4.0", "llama3.1"):
        assert not licence(name).forbids_commercial_use
        assert "allows commercial use" in licence(name).in_words
    assert {name: licence(name).commercial for name in ("MIT", "llama3.3")} == {"MIT": "yes", "llama3.3": "conditions"}
    assert [licence(name).share_alike for name in ("CC-BY-SA-4.0", "CC-BY-NC-SA-4.0", "CC-BY-4.0")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("name", [None, "", "LicenseRef-of-our-own"])
def test_unknown_licences(name: str | None) -> None:
    found = licence(name)
    assert not found.known
    assert not found.forbids_commercial_use
    assert "read it yourself" in found.in_words
    assert found.id == (name or "unknown")


def test_every_obligation_is_a_sentence() -> None:
    sources = [found for name in SOURCES if (found := card(name))]
    texts = [text for found in sources for text in found.obligations]
    texts += [text for found in sources if found.license for text in licence(found.license).obligations]
    texts += [text for name in KNOWN for text in licence(name).obligations]
    assert texts
    assert all(text[0].isupper() and text.endswith(".") and "\n" not in text for text in texts)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_cards_agree_with_the_sources(name: str) -> None:
    found = card(name)
    if name in ("generic", "generated"):  # they say nothing of where rows are from
        assert found is None
        return
    assert found is not None
    assert found.title
    assert found.url.startswith("https://")
    assert found.attribution
    if found.license is not None:
        assert licence(found.license).known
    # The licence of Tulu 3 is that of a collection, whose rows carry those of its subsets.
    assert SOURCES[name].license == (None if found.subsets else found.license)


def test_subsets_are_told_apart() -> None:
    found = card("tulu3")
    assert found is not None
    assert [found.subset(subset.rows) for subset in found.subsets] == list(found.subsets)
    assert {subset.name for subset in found.non_commercial_subsets} == {"flan_v2", "sciriff", "no_robots", "numinamath"}
    assert found.subset("allenai/tulu-3-sft-personas-math-grade-filtered") == found.subset(
        "allenai/tulu-3-sft-personas-math-grade"
    )
    assert found.subset("somebody/else") is None


def test_no_card_of_an_unknown_source() -> None:
    assert card("licences") is None
    assert card("nothing") is None
