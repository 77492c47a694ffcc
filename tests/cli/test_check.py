"""`posttrain check` as a command: what it prints, its exit code, and what it imports."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from posttrain.cli import main
from tests.helpers import HEAVY, run_python

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is made the working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("RANK", "WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    return folder


def test_help_and_a_recipe_error_import_nothing_heavy(here: Path) -> None:
    program = (
        "import json, sys; from posttrain.cli import main; "
        "codes = [main(['check', '--help']), main(['check', 'tiny', 'sft.learning_rat=1'])]; "
        f"print(); print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))"
    )
    started = time.monotonic()
    done = run_python(["-c", program], at=here)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 2], []], done.stderr
    assert "did you mean learning_rate?" in done.stderr
    assert time.monotonic() - started < 10  # a second and a half on a free machine
    assert list(here.iterdir()) == []


def test_a_recipe_without_errors(here: Path, capsys: Capture) -> None:
    assert main(["check", "tiny", "launch.cpu=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("tiny: 0 errors, ")
    levels = [line.split(":")[0] for line in lines[:-1]]
    assert levels == sorted(levels, key=("error", "warning", "note").index)
    assert list(here.iterdir()) == []


def test_errors_come_first_and_end_with_code_2(here: Path, capsys: Capture) -> None:
    arguments = [
        "launch.cpu=true",
        "sft.global_batch_size=3",
        "sft.per_device_train_batch_size=2",
        "sft.max_length=9999",
    ]
    assert main(["check", "tiny", *arguments, "data.sft.0.path=absent.jsonl"]) == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.startswith("error:") for line in lines[:4]] == [True, True, True, False]
    assert "3 errors" in lines[-1]
    assert printed.err == ""


def test_devices_that_are_not_known(here: Path, capsys: Capture) -> None:
    assert main(["check", "tiny", "--hardware", "h1000"]) == 2
    assert "did you mean H100?" in capsys.readouterr().err
