"""The options of `posttrain release`, `verify` and `run --verify-rebuild` that do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["release", "tiny", "--public"], "--public says how to push; give --push ORG too"),
        (["release", "tiny", "--dry-run"], "--dry-run says how to push; give --push ORG too"),
        (["release", "tiny", "--smoke", "--push", "lab"], "a smoke run trains nothing worth publishing"),
        (["release", "tiny", "--push", "../lab"], "release.org: '../lab' is no name"),
        (["release", "tiny", "release=null"], "posttrain release: the recipe has no such stage"),
        (["verify", ".", "--identity", "me@example.org"], "--identity and --issuer belong together"),
        (["verify", ".", "--key", "k", "--identity", "m", "--issuer", "i"], "a release has one signature"),
        (["verify", "."], "holds no release"),
        (["run", "--verify-rebuild", "x", "tiny"], "tiny: --verify-rebuild takes the recipe that x records"),
        (["run", "--verify-rebuild", "x", "--force", "sft"], "--verify-rebuild builds all of the chain anew"),
        (["run", "--verify-rebuild", "x"], "--verify-rebuild x: there is no such folder"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err, printed
    assert list(tmp_path.iterdir()) == []


def test_run_without_a_recipe_is_a_wrong_command(capsys: Capture) -> None:
    assert main(["run"]) == 2
    assert "give a recipe: a file, or the name of a built-in one" in capsys.readouterr().err


def test_the_summary_says_what_was_released() -> None:
    from posttrain.cli.summary import figures

    said = figures("release", {"folders": 2, "signed": False, "sft/stops": True, "instruct/stops": False})
    assert said == "folders: 2, not signed; 1 of them stop by themselves"
