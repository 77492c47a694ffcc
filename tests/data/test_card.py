"""The dataset card says what the folder holds, in a form that the hub can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import posttrain
from posttrain.data.card import write_card
from posttrain.data.tables import schema
from tests.data.finished import SETTINGS, account, finish, sft, write_folder, write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return write_card(folder, "bread").read_text(encoding="utf-8")


def _table(text: str, after: str) -> list[list[str]]:
    """Return the cells of the first table after a line, without its head."""
    lines = text[text.index(after) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("| "):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_the_hub_library_reads_the_head(text: str) -> None:
    from huggingface_hub import DatasetCard

    data = DatasetCard(text, ignore_metadata_errors=False).data.to_dict()
    assert data["language"] == ["en", "fi"]
    assert data["license"] == "other", "some rows state none"
    assert data["size_categories"] == "n<1K"
    configs = {config["config_name"]: config["data_files"] for config in data["configs"]}
    assert [each["split"] for each in configs["sft"]] == ["train", "validation"]
    assert configs["preference"] == [{"split": "train", "path": "preference/train.parquet"}], "none are held out"


def test_datasets_loads_the_splits_that_the_head_names(folder: Path, text: str, tmp_path: Path) -> None:
    import datasets

    assert text
    loaded = datasets.load_dataset(str(folder), "sft", cache_dir=str(tmp_path))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["sets"]["sft"]
    assert {name: len(rows) for name, rows in loaded.items()} == {
        "train": summary["train"],
        "validation": summary["validation"],
    }


def test_counts_shares_and_losses(text: str) -> None:
    assert _table(text, "| Set |") == [
        ["SFT mixture", "43", "1", "8"],
        ["Preference pairs", "40", "0", "1"],
    ]
    bread, finnish = _table(text, "### SFT mixture")
    assert bread[:2] == ["bread", "example/bread at revision 0123456789abcdef0123"]
    assert bread[3:7] == ["35", "31", "1", "72.1%"]
    assert finnish[2] == "CC-BY-NC-4.0 (75.0%) and not stated (25.0%)"
    removed = {(row[0].partition(":")[0], row[1]): row[2] for row in _table(text, "## What was removed")}
    assert removed["near-duplicates", "near-duplicate"] == "2"
    assert removed["mixing", "fraction or max_rows of the source"] == "1"
    assert removed["read", "not JSON"] == "1"


def test_licences_and_how_it_was_built(text: str) -> None:
    assert "This mix may not be used commercially, because the licences of 9 rows" in text
    assert "CC-BY-NC-4.0 (from leipä)" in text
    assert (
        "- **CC-BY-4.0** (Creative Commons Attribution 4.0): 40 rows, from helpsteer3. Commercial use is allowed."
        in text
    )
    assert f"posttrain {posttrain.__version__}, seed 42" in text
    assert "- **Length.** Kept are user turns of at least 3 characters" in text
    assert "- **Contamination.** Rows whose user turns hold 50% or more" in text


def test_the_fields_are_those_of_the_files(text: str) -> None:
    for kind, after in (("sft", "\nSFT mixture:"), ("preference", "\nPreference pairs:")):
        assert [row[0].strip("`") for row in _table(text, after)] == schema(kind).names


def test_equal_folders_give_equal_bytes(text: str, tmp_path: Path) -> None:
    assert write_card(write_folder(tmp_path), "bread").read_text(encoding="utf-8") == text


def _plain(folder: Path, license: str | None, entry: dict[str, Any] | None = None, name: str = "one") -> str:
    rows = [sft(number, name, license=license) for number in range(3)]
    write_set(folder, "sft", rows, [], [], [])
    one = account("data.sft.0", name, read=3, units=3, used=3, rows=3, source=(entry or {}).get("source", "generic"))
    finish(folder, {"sft": [one]}, {"sft": [entry]} if entry else {}, {"sft": (rows, [])})
    return write_card(folder, "plain").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("license", "hub", "words"),
    [
        ("Apache-2.0", "license: apache-2.0\n", "None of the licences recorded for this mix forbids commercial use."),
        ("odc-by", "license: odc-by\n", "None of the licences recorded for this mix forbids commercial use."),
        ("llama3.3", "license: llama3.3\n", "allow it on conditions"),
        ("Home-made-1", "license: other\n", "is not known: the licences of 3 rows (100.0%), Home-made-1 (from one)"),
        (None, "license: other\n", "is not known: the licences of 3 rows (100.0%), not stated (from one)"),
    ],
)
def test_commercial_use_in_careful_words(license: str | None, hub: str, words: str, tmp_path: Path) -> None:
    text = _plain(tmp_path, license)
    assert hub in text
    assert words in text
    assert "No row of the set “SFT mixture” was removed." in text
    assert "The rows were not compared with any evaluation set." in text


def test_what_is_known_of_a_source_is_said(tmp_path: Path) -> None:
    entry = {"source": "tulu3", "path": "example/tulu", "drop_subsets": ["flan_v2", "No-Robots"]}
    text = _plain(tmp_path, "ODC-BY-1.0", entry, "tulu3")
    assert "[Tulu 3 SFT Mixture](https://huggingface.co/datasets/allenai/tulu-3-sft-mixture), by Allen" in text
    left_out = text.partition("Left out as non-commercial: ")[2].partition(".")[0]
    assert left_out == "FLAN v2 and No Robots"
    assert "Not left out, and not free for commercial use: NuminaMath-TIR" in text
    assert "`drop_subsets: [flan_v2, No-Robots]`" in text


def test_a_name_with_a_bar_stays_in_its_cell(tmp_path: Path) -> None:
    text = _plain(tmp_path, "MIT", name="a|b <i>")
    assert len(_table(text, "### SFT mixture")[0]) == 8
    assert "| a\\|b &lt;i> |" in text
    assert "validation" not in SETTINGS["sft"][0]
