"""A released folder answers in a process of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from posttrain.errors import UserError
from posttrain.release.answer import ask
from posttrain.release.layout import CARD


def copied(built: Path, to: Path) -> tuple[Path, str]:
    """Copy a release folder; return it with its card."""
    folder = Path(shutil.copytree(built / "release" / "sft", to / "sft"))
    return folder, (folder / CARD).read_text(encoding="utf-8")


def test_the_code_of_the_card_answers_in_a_process_of_its_own(built: Path, tmp_path: Path) -> None:
    folder, card = copied(built, tmp_path)
    # A model of which every token ends the turn stops at once.
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    config["eos_token_id"] = list(range(400))
    (folder / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    answer = ask(card, folder)
    assert answer.tokens == 1
    assert answer.stopped


def test_a_card_without_code_is_said(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no usage code"):
        ask("# nothing\n", tmp_path)


@pytest.mark.slow
def test_a_model_that_does_not_stop_or_does_not_load_is_told(built: Path, tmp_path: Path) -> None:
    folder, card = copied(built, tmp_path)
    answer = ask(card, folder)
    assert answer.tokens == 8, "random weights go on to the end"
    assert not answer.stopped
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="sft: the usage code of its card fails: "):
        ask(card, folder)
