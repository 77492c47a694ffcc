"""Scores that are kept: the same number comes back, for the same model and conversation only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain.data.generate.requests import Failed
from posttrain.data.generate.scores import Scores
from posttrain.data.generate.store import Store
from posttrain.data.rows import Message
from posttrain.recipe.schema_generate import RewardModel
from tests.data.generate.made import turns

SECTION = RewardModel(model="org/reward")


class Computed:
    """Scores by a list, and counts how often it was asked."""

    def __init__(self, *scores: float | Exception) -> None:
        self._scores = iter(scores)
        self.times = 0

    async def __call__(self, messages: Sequence[Message]) -> float:
        self.times += 1
        score = next(self._scores)
        if isinstance(score, Exception):
            raise score
        return score


def score(path: Path, section: RewardModel, computed: Computed, answer: str = "A") -> float:
    with Store(path) as store:
        return asyncio.run(Scores(section, store, computed).score(turns("Q", answer)))


@pytest.mark.parametrize("value", [0.1 + 0.2, -1e-17, 3.0, 123456789.123456789])
def test_a_score_comes_back_as_it_was_after_opening_again(tmp_path: Path, value: float) -> None:
    computed = Computed(value)
    assert score(tmp_path / "a", SECTION, computed) == value
    assert score(tmp_path / "a", SECTION, computed) == value
    assert computed.times == 1


def test_what_may_change_a_score_is_in_its_key(tmp_path: Path) -> None:
    computed = Computed(1.0, 2.0, 3.0, 4.0, 5.0)
    assert score(tmp_path / "a", SECTION, computed) == 1.0
    assert score(tmp_path / "a", SECTION, computed, "B") == 2.0
    assert score(tmp_path / "a", replace(SECTION, model="org/other"), computed) == 3.0
    assert score(tmp_path / "a", replace(SECTION, revision="v2"), computed) == 4.0
    assert score(tmp_path / "a", replace(SECTION, max_length=10), computed) == 5.0
    assert score(tmp_path / "a", replace(SECTION, batch_size=1, dtype="float32"), computed) == 1.0


def test_a_model_in_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"first")
    section, computed = RewardModel(model=str(folder)), Computed(1.0, 2.0)
    assert [score(tmp_path / "a", section, computed) for _ in range(2)] == [1.0, 1.0]
    (folder / "model.safetensors").write_bytes(b"second")
    assert score(tmp_path / "a", section, computed) == 2.0


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    computed = Computed(Failed("too long: 9"), 2.0)
    with pytest.raises(Failed, match="too long"):
        score(tmp_path / "a", SECTION, computed)
    assert score(tmp_path / "a", SECTION, computed) == 2.0
    with pytest.raises(Failed, match="not valid Unicode"):
        score(tmp_path / "a", SECTION, computed, "\ud800")
