"""The sample rows: the same bytes again, and every trap seen by the converter it was laid for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.assets import asset_folder
from tests.data.conversions import convert

DATA = asset_folder("data")
WRITTEN_BY_HAND = {Path("samples/ifeval-en.jsonl"), Path("samples/ifeval-fi.jsonl")}


def test_they_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    command = [sys.executable, "-B", str(DATA / "make_samples.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=60)
    made = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    kept = {
        file.relative_to(DATA): file.read_bytes() for room in ("samples", "text") for file in (DATA / room).iterdir()
    }
    for file in WRITTEN_BY_HAND:
        kept.pop(file)
    assert made == kept


@pytest.mark.parametrize(
    ("file", "source", "makes", "keys", "reasons"),
    [
        (
            "tulu3",
            "tulu3",
            "sft",
            {"drop_subsets": ["flan_v2", "sciriff", "no_robots", "numinamath"]},
            {"subset dropped", "no assistant turn"},
        ),
        (
            "magpie",
            "magpie",
            "sft",
            {"min_quality": "average"},
            {"quality below min_quality", "input_quality not stated"},
        ),
        ("magpie", "magpie", "sft", {"safe_only": True, "min_neighbor_distance": 0.05}, {"not safe", "near-duplicate"}),
        (
            "europarl",
            "europarl",
            "sft",
            {},
            {"shorter than min_chars", "empty content", "both sides say the same", "side in another language"},
        ),
        (
            "ultrafeedback",
            "ultrafeedback",
            "preference",
            {},
            {"tie", "chosen scores below rejected", "chosen equals rejected", "empty content"},
        ),
        ("avoin-avustaja", "avoin_avustaja", "preference", {}, {"deleted", "synthetic", "orphan", "unranked reply"}),
        ("helpsteer3", "helpsteer3", "preference", {}, {"tie", "content is not text", "empty content"}),
    ],
)
def test_traps(file: str, source: str, makes: str, keys: dict[str, Any], reasons: set[str]) -> None:
    lines = (DATA / "samples" / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    rows, refused = convert(source, makes, [json.loads(line) for line in lines], **keys)
    assert reasons <= {row.kind for row in refused}
    assert len(rows) >= 20
