"""Real variants of tiny models by GPTQModel, in processes of their own: equal bytes, and a model that works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.recipe.schema import Model
from posttrain.recipe.schema_quantize import HeldOut, TextSet, Variant
from posttrain.release.quantize.build import build
from posttrain.train.stand_in import make_stand_in
from tests.helpers import snapshot
from tests.release.quantize.conftest import SAMPLES, MakeTask

pytestmark = pytest.mark.slow
SMALL = {
    "calibration": TextSet(path=SAMPLES, samples=4, length=64),
    "heldout": HeldOut(path="builtin:samples/prompt-completion.jsonl", samples=2, length=64),
}


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("gptqmodel")
    pytest.importorskip("optimum")


def bytes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by relative name."""
    return {name: digest for name, (_, digest) in snapshot(folder).items()}


def test_two_builds_are_equal_in_every_byte(task: MakeTask) -> None:
    variant = Variant(bits=4, group_size=64)
    one, two = (task(variant, at=name, backends=["torch"], **SMALL) for name in ("one", "another-name"))
    build(one)
    build(two)
    assert bytes_of(one.folder / variant.name) == bytes_of(two.folder / variant.name)
    assert (one.folder / "variants.json").read_bytes() == (two.folder / "variants.json").read_bytes()
    assert json.loads((one.folder / variant.name / "config.json").read_text())["dtype"] == "float32"


def test_a_tiny_bloom_without_a_template_in_4_bits(task: MakeTask, tmp_path: Path) -> None:
    source = tmp_path / "bloom"
    said = make_stand_in(Model(base="x/y"), "LumiOpen/Poro-34B", source, seed=3, reward=False)
    assert said == "a tiny BloomForCausalLM with random weights"
    asked = task(Variant(bits=4, group_size=32), source=source, **SMALL)
    build(asked)
    (row,) = json.loads((asked.folder / "variants.json").read_text())["variants"]
    assert row["failed"] is None
    assert all(found["generates"] for found in row["backends"].values())
    assert row["perplexity_ratio"] == pytest.approx(1, abs=0.05)  # of random weights, which lose little
    assert not row["exllama"]
    assert not (asked.folder / row["name"] / "chat_template.jinja").exists()
