"""The whole chain in miniature: built, reused, forced, changed, cut off, and the same every time."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from posttrain.cli import main
from posttrain.stages import Manifest
from tests.end_to_end.conftest import MINIATURE, run_miniature
from tests.helpers import HEAVY, ROOT, environment, run_python, snapshot, start

STAGES = {
    "base": "cpt",
    "data": "data",
    "tokens-sft": "tokenize-sft",
    "tokens-preference": "tokenize-preference",
    "sft": "sft",
    "ref_logps": "ref-logps",
    "instruct": "dpo",
}
COMPLETE = "data, base, tokens-sft, tokens-preference, sft, ref_logps, instruct"
WEIGHTS = "model.safetensors"
# Long enough to be cut off in the middle; save_steps decides no result.
LONG = ("sft.max_steps=40", "--until", "sft")
OFTEN = ("sft.save_steps=1", *LONG)

Copy = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def digest(folder: Path) -> str:
    return Manifest.read(folder).digest


def without_hidden(state: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """Leave out the lock, and the time stamp of the folder that it is in."""
    return {name: entry for name, entry in state.items() if not name.startswith(".")}


def test_every_stage_leaves_a_folder_with_its_manifest(built: Path) -> None:
    assert visible(built) == set(STAGES)
    assert not (built / ".building").exists()
    for folder, stage in STAGES.items():
        manifest = Manifest.read(built / folder)
        assert manifest.stage == stage
        assert manifest.damage(built / folder) == []
        files = {path.relative_to(built / folder).as_posix() for path in (built / folder).rglob("*") if path.is_file()}
        assert files == {*manifest.files, "manifest.json"}
        for name, source in manifest.inputs.items():
            before = next(other for other, its in STAGES.items() if its == name)
            assert source["digest"] == digest(built / before)
    assert str(built) not in (built / "instruct/manifest.json").read_text(encoding="utf-8")
    assert Manifest.read(built / "instruct").metrics["steps"] == 2


def test_a_second_run_does_nothing_and_imports_nothing_heavy(copy_built: Copy, here: Path) -> None:
    output = copy_built()
    before = snapshot(output)
    program = (
        "import sys; from posttrain.cli import main; code = main(sys.argv[1:]); "
        f"print([name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
    )
    done = run_python(["-c", program, "run", "tiny", *MINIATURE, f"output_dir={output}"], at=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"nothing to do: {COMPLETE} in {output} are complete",
        "[]",
    ]
    assert snapshot(output) == before


def test_two_runs_from_scratch_are_equal_byte_for_byte(built: Path, tmp_path: Path, capsys: Capture) -> None:
    again = tmp_path / "again"
    assert run_miniature(again) == 0
    printed = capsys.readouterr().out
    for folder in STAGES:
        assert digest(again / folder) == digest(built / folder)
    for folder in ("base", "sft", "instruct"):
        assert (again / folder / WEIGHTS).read_bytes() == (built / folder / WEIGHTS).read_bytes()
    assert (again / "sft" / WEIGHTS).read_bytes() != (again / "base" / WEIGHTS).read_bytes()
    assert (again / "instruct" / WEIGHTS).read_bytes() != (again / "sft" / WEIGHTS).read_bytes()
    assert "held-out loss" in printed
    assert "preference accuracy" in printed
    assert "reward_margin.png" in printed


def test_force_rebuilds_and_keeps_what_was_there(copy_built: Copy, capsys: Capture) -> None:
    output = copy_built()
    before = snapshot(output)
    assert run_miniature(output, "--force", "sft") == 0
    after = snapshot(output)
    (kept,) = (output / ".replaced").iterdir()
    assert kept.name.startswith("sft-")
    old = {name.removeprefix("sft/"): entry for name, entry in before.items() if name.startswith("sft/")}
    assert {name: entry for name, entry in snapshot(kept).items() if name != "."} == old
    assert after[f"sft/{WEIGHTS}"][0] > before[f"sft/{WEIGHTS}"][0]
    assert after[f"sft/{WEIGHTS}"][1] == before[f"sft/{WEIGHTS}"][1]
    untouched = ("base/", "data/", "instruct/")
    assert all(after[name] == entry for name, entry in before.items() if name.startswith(untouched))
    assert f"what was in {output / 'sft'} is kept in {kept}" in capsys.readouterr().out


def test_until_builds_no_more_and_from_no_less(built: Path, copy_built: Copy, capsys: Capture) -> None:
    output = copy_built("base")
    assert run_miniature(output, "--until", "data") == 0
    assert visible(output) == {"base", "data"}
    assert digest(output / "data") == digest(built / "data")

    capsys.readouterr()
    before = snapshot(output)
    assert run_miniature(output, "--from", "dpo") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(
        "posttrain: error: tokenize-sft: it is not there yet, and this command starts after it"
    )
    assert without_hidden(snapshot(output)) == without_hidden(before)

    for name in ("tokens-sft", "tokens-preference", "sft", "ref_logps"):
        shutil.copytree(built / name, output / name)
    before = snapshot(output)
    assert run_miniature(output, "--from", "dpo") == 0
    assert "sft: " not in capsys.readouterr().out
    assert digest(output / "instruct") == digest(built / "instruct")
    assert all(snapshot(output)[name] == entry for name, entry in before.items() if name.startswith("sft/"))


def test_reference_log_probabilities_follow_the_checkpoint(built: Path, copy_built: Copy, capsys: Capture) -> None:
    """A beta needs no new ones, and another SFT checkpoint does; the trained model is that of a reference in memory."""
    output = copy_built("base", "data", "tokens-sft", "tokens-preference", "sft", "ref_logps")
    assert run_miniature(output, "dpo.beta=0.5") == 0
    assert f"ref-logps: {output / 'ref_logps'} is complete" in capsys.readouterr().out
    assert digest(output / "instruct") != digest(built / "instruct")

    assert run_miniature(output, "dpo.beta=0.5", "sft.learning_rate=1e-3", "--force", "sft") == 0
    printed = capsys.readouterr().out
    assert f"ref-logps: building {output / 'ref_logps'} (sft, which it is built from, is rebuilt)" in printed
    assert digest(output / "ref_logps") != digest(built / "ref_logps")
    assert Manifest.read(output / "instruct").metrics["before/loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_two_models_in_memory_train_the_same(built: Path, copy_built: Copy) -> None:
    import torch
    from safetensors.torch import load_file

    output = copy_built("base", "data", "tokens-sft", "tokens-preference", "sft")
    assert run_miniature(output, "dpo.reference=model") == 0
    assert not (output / "ref_logps").exists()
    one, two = (load_file(folder / "instruct" / WEIGHTS) for folder in (built, output))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], rtol=1e-4, atol=1e-4), name


def test_a_changed_key_is_refused_by_name(copy_built: Copy, capsys: Capture) -> None:
    output = copy_built()
    before = snapshot(output)
    assert run_miniature(output, "sft.learning_rate=1e-3") == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(f"posttrain: error: sft: {output}/sft was made from something else (sft.learning_rate: was")
    assert any("--force sft" in line and "output_dir=" in line for line in rest)
    assert snapshot(output) == before


def test_a_key_that_decides_nothing_rebuilds_nothing(copy_built: Copy, capsys: Capture) -> None:
    output = copy_built()
    assert run_miniature(output, "sft.save_steps=7", "dpo.logging_steps=3", "name=other") == 0
    assert capsys.readouterr().out.startswith("nothing to do")


@pytest.fixture(scope="module")
def long_sft(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SFT folder of a longer run that nothing interrupted."""
    output = tmp_path_factory.mktemp("long")
    for name in ("base", "data"):
        shutil.copytree(built / name, output / name)
    assert run_miniature(output, *LONG) == 0
    return output / "sft"


def saved_steps(output: Path) -> int:
    """Return the step of the last checkpoint of SFT that is complete, 0 if there is none."""
    marks = output.glob(".building/sft-*/.work/checkpoint-*/complete")
    return max((int(mark.parent.name.rpartition("-")[2]) for mark in marks), default=0)


def stop_in_the_middle(output: Path, at: Path, number: int) -> tuple[int, str, str]:
    """Run the longer SFT in a process of its own and send it a signal once it has saved some checkpoints."""
    process = start(["run", "tiny", *MINIATURE, f"output_dir={output}", *OFTEN], at=at)
    until = time.monotonic() + 100
    while saved_steps(output) < 5:  # the first ones are logged by themselves, and would hide a log that starts anew
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    assert not (output / "sft").exists(), "it was not cut off in the middle"
    return process.returncode, printed, errors


def goes_on(output: Path, capsys: Capture, whole: Path) -> None:
    """Give the same command again, and compare the result with that of a run that was not cut off."""
    capsys.readouterr()
    assert run_miniature(output, *OFTEN) == 0
    assert f"sft: continuing {output}/sft (it was interrupted)" in capsys.readouterr().out
    assert (output / "sft" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert digest(output / "sft") == digest(whole)
    cut, uncut = (
        {key: value for key, value in Manifest.read(folder).metrics.items() if key.partition("/")[0] in HELD_OUT}
        for folder in (output / "sft", whole)
    )
    assert cut == uncut
    assert {"before/loss", "after/loss"} <= cut.keys()
    assert not (output / ".building").exists()


HELD_OUT = ("before", "after")


def test_killed_and_started_again_equals_uninterrupted(
    copy_built: Copy, here: Path, long_sft: Path, capsys: Capture
) -> None:
    output = copy_built("base", "data")
    code, _, _ = stop_in_the_middle(output, here, signal.SIGKILL)
    assert code == -signal.SIGKILL
    goes_on(output, capsys, long_sft)


def test_ctrl_c_saves_and_the_same_command_goes_on(
    copy_built: Copy, here: Path, long_sft: Path, capsys: Capture
) -> None:
    output = copy_built("base", "data")
    code, _, errors = stop_in_the_middle(output, here, signal.SIGINT)
    assert code == 130, errors
    assert "Traceback" not in errors
    told = errors.splitlines()[-1]
    assert told.startswith("posttrain: sft stopped at step ")
    assert told.endswith(" of 40 and saved; the same command goes on from there")
    goes_on(output, capsys, long_sft)


def console_script() -> list[str]:
    """Return the installed command, or what an installer would have put into it."""
    script = Path(sys.executable).with_name("posttrain")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "import sys; from posttrain.cli import main; sys.exit(main())"]


@pytest.mark.parametrize(
    ("command", "recipe", "at_root"),
    [
        (console_script(), "tiny", False),
        (console_script(), str(ROOT / "recipes/tiny.yaml"), False),
        ([sys.executable, "-m", "posttrain"], "recipes/tiny.yaml", True),
        ([sys.executable, "posttrain"], "recipes/tiny.yaml", True),
    ],
    ids=["built-in", "file", "module", "folder"],
)
def test_every_way_to_start_it_is_the_same_run(
    copy_built: Copy, here: Path, command: list[str], recipe: str, at_root: bool
) -> None:
    output = copy_built(to=here / "outputs/tiny")
    elsewhere = [f"output_dir={output}"] if at_root else []  # otherwise the recipe's own, below the working folder
    done = subprocess.run(
        [*command, "run", recipe, *MINIATURE, *elsewhere],
        cwd=ROOT if at_root else here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = output if at_root else Path("outputs/tiny")
    assert done.stdout == f"nothing to do: {COMPLETE} in {shown} are complete\n"


def test_tensorboard_writes_beside_the_stages(built: Path, copy_built: Copy) -> None:
    pytest.importorskip("tensorboard")
    output = copy_built("base", "data")
    assert run_miniature(output, "report_to=[tensorboard]") == 0
    assert visible(output) == {*STAGES, "logs"}
    for stage in ("sft", "dpo"):
        assert list((output / "logs" / stage).rglob("events.out.tfevents.*"))
    for folder in ("sft", "instruct"):
        manifest = Manifest.read(output / folder)
        assert not [name for name in manifest.files if "tfevents" in name]
        assert manifest.digest == digest(built / folder)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_an_adapter_of_sft_is_trained_further_by_dpo(copy_built: Copy, capsys: Capture, quantization: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = copy_built("base", "data")
    adapters = (
        "sft.lora={r: 4, alpha: 8, merge: false}",
        "dpo.lora={r: 4, alpha: 8}",
        f"sft.quantization={quantization}",
        f"dpo.quantization={quantization}",
    )
    assert run_miniature(output, *adapters) == 0
    capsys.readouterr()
    config = json.loads((output / "sft/adapter_config.json").read_text(encoding="utf-8"))
    assert not (output / "sft" / WEIGHTS).exists()
    assert os.fspath(output) not in json.dumps(config)
    metrics = Manifest.read(output / "instruct").metrics
    assert metrics["before/rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["merge_logit_difference"] < 1e-4
    assert (output / "instruct" / WEIGHTS).read_bytes() != (output / "base" / WEIGHTS).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(output / "instruct")
    assert len(AutoTokenizer.from_pretrained(output / "instruct")) == model.config.vocab_size == 320
    assert main(["run", "tiny", *MINIATURE, f"output_dir={output}", *adapters]) == 0
    assert capsys.readouterr().out.startswith("nothing to do")
