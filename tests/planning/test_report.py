"""What `posttrain plan` prints about the training, and the change it advises where a stage does not fit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.planning.advice import nearest_fit
from posttrain.planning.chain import device_count, plan_training
from posttrain.planning.hardware import HARDWARE
from posttrain.planning.memory import peak
from posttrain.planning.model import KNOWN, shape
from posttrain.planning.report import duration, gb, scaled
from posttrain.planning.setup import setup, strategy
from posttrain.planning.step import Setup
from posttrain.recipe import load
from tests.helpers import ROOT, environment

Capture = pytest.CaptureFixture[str]
SIZES = shape(KNOWN["LumiOpen/Llama-Poro-2-8B-base"])
SETUP = Setup(shape=SIZES, stage="sft", rows=4, length=4096, devices=8, accumulate=4, strategy="ddp")
RECIPES = ("70b", "8b", "8b-qlora", "smollm2-135m", "smollm2-135m-lora", "tiny")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(capsys: Capture, *arguments: str) -> str:
    code = main(["plan", *arguments])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def section(text: str, stage: str) -> str:
    """Return the part of a plan about one training stage."""
    return next(part for part in text.split("\n\n") if re.match(rf"{stage} (on|in) ", part))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_planned_without_a_network(name: str, capsys: Capture, here: Path) -> None:
    text = plan(capsys, name)
    recipe = load(name).recipe
    for stage in ("cpt", "sft", "dpo"):
        if getattr(recipe, stage) is not None:
            part = section(text, stage)
            assert [
                word for word in ("trains", "batch", "states", "peak", "fits", "steps") if f"  {word} " not in part
            ] == []
    assert max(map(len, text.splitlines())) < 240
    assert list(here.iterdir()) == [], "plan writes nothing"


def test_70b_on_64_dies(capsys: Capture, here: Path) -> None:
    config = f"launch.config={ROOT / 'launch/accelerate/zero3.yaml'}"
    text = plan(capsys, "70b", config, "--hardware", "MI250X", "--devices", "64")
    for stage in ("sft", "dpo"):
        part = section(text, stage)
        assert f"{stage} on 64 x MI250X die, ZeRO-3" in part
        assert "17.6 GB on each device (one of 64 shards)" in part
        assert "fits        yes" in part
        assert "22% of 192 TFLOP/s used, which is 17% MFU" in part
    assert "sbatch" in text.splitlines()[-1] or "sbatch" in text, "64 dies are more than one machine has"
    assert "launch.num_processes=64" in text


def test_8b_qlora_fits_24_gb(capsys: Capture, here: Path) -> None:
    text = plan(capsys, "8b-qlora", "--hardware", "RTX4090", "--devices", "1")
    for stage in ("sft", "dpo"):
        part = section(text, stage)
        assert "rank 16" in part
        assert "training runs in one process: posttrain run 8b-qlora" in text
        assert "4-bit (NF4, double quantisation)" in part
        assert "fits        yes" in part
    text = plan(capsys, "8b-qlora", "--hardware", "RTX4090", "--devices", "1", "sft.gradient_checkpointing=false")
    assert "with: sft.gradient_checkpointing=true" in section(text, "sft")


def test_rows_that_are_built_give_steps_and_hours(capsys: Capture, here: Path) -> None:
    few = ["cpt=null", "model.new=null", f"model.base={here / 'model'}", "model.chat_template=llama-3.1"]
    few += [f"data.sft.{number}.max_rows=4" for number in range(6)]
    few += ["data.preference=[]", "dpo=null", "data.num_proc=1"]
    from tests.helpers import make_tokenizer, save_checkpoint

    save_checkpoint(make_tokenizer(), here / "model")
    capsys.readouterr()
    assert main(["tokenize", "tiny", *few]) == 0
    capsys.readouterr()
    text = plan(capsys, "tiny", *few, "--hardware", "H100")
    manifest = json.loads((here / "outputs/tiny/tokens-sft/manifest.json").read_text(encoding="utf-8"))
    blocks, tokens = manifest["metrics"]["blocks"], manifest["metrics"]["tokens"]
    part = section(text, "sft")
    assert f"{-(-blocks // 2):,}, {scaled(tokens)} tokens (1 epoch of {blocks:,} rows" in part
    assert "device hours" in part
    assert "kWh" in part


def test_a_model_that_cannot_be_planned_is_said_so(capsys: Capture, here: Path) -> None:
    plain = ["cpt=null", "model.new=null"]
    (here / "other").mkdir()
    (here / "other" / "config.json").write_text('{"model_type": "gpt_neox"}', encoding="utf-8")
    text = plan(capsys, "tiny", *plain, "model.base=other")
    assert "not planned: model_type 'gpt_neox' is not among those" in text
    text = plan(capsys, "tiny", *plain, "model.base=nobody/nothing")
    assert "not planned: model.base: the configuration of nobody/nothing cannot be fetched" in text


def test_unknown_hardware_is_an_error(capsys: Capture, here: Path) -> None:
    assert main(["plan", "tiny", "--hardware", "H10"]) == 2
    assert "did you mean H100?" in capsys.readouterr().err
    assert main(["plan", "tiny", "launch.hardware=H10"]) == 2
    assert "launch.hardware" in capsys.readouterr().err


def test_hardware_of_the_recipe_changes_nothing_that_is_built(capsys: Capture, here: Path) -> None:
    from posttrain.stages.runner import survey

    plain, named = (survey(load("tiny", changes)) for changes in ([], ["launch.hardware=H100"]))
    assert [status.fingerprint for status in plain] == [status.fingerprint for status in named]
    assert section(plan(capsys, "tiny", "launch.hardware=H100"), "sft").startswith("sft on 1 x H100 80 GB, one process")


def test_a_plan_of_a_folder_and_of_a_known_base_imports_no_torch(here: Path) -> None:
    config = {"model_type": "llama", **KNOWN["HuggingFaceTB/SmolLM2-135M"]}
    (here / "config.json").write_text(json.dumps(config), encoding="utf-8")
    script = (
        "import sys; from posttrain.cli import main\n"
        f"plans = ['smollm2-135m', 'model.base={here}'], ['70b', '--hardware', 'H100']\n"
        "codes = [main(['plan', *each]) for each in plans]\n"
        "heavy = [name for name in ('torch', 'transformers', 'trl', 'datasets', 'pyarrow') if name in sys.modules]\n"
        "print(codes, heavy)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=here, env=environment(), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[0, 0] []", done.stderr


def fits(found: Any) -> bool:
    return found is not None and peak(found[1]).total <= HARDWARE["A100-80G"].usable


def test_the_nearest_change_is_the_smallest() -> None:
    hardware = HARDWARE["A100-80G"]
    sharded = replace(SETUP, strategy="fsdp2")
    found = nearest_fit(replace(sharded, rows=2, accumulate=8), hardware)
    assert fits(found)
    assert found is not None
    assert found[0] == "sft.gradient_checkpointing=true"
    found = nearest_fit(replace(SETUP, rows=1, accumulate=16, checkpointing=True), hardware)
    assert fits(found)
    assert found is not None
    assert found[0] == "launch.config=launch/accelerate/fsdp2.yaml"
    found = nearest_fit(replace(SETUP, devices=1, strategy="none", rows=1, accumulate=128), HARDWARE["RTX4090"])
    assert found is not None
    assert "sft.lora={r: 16}" in found[0]
    assert found[1].adapter is not None


def test_a_change_keeps_the_global_batch_and_combines_what_goes_together() -> None:
    hardware = HARDWARE["RTX4090"]
    start = replace(SETUP, devices=2, rows=4, accumulate=2)
    found = nearest_fit(start, hardware)
    assert found is not None
    changed = found[1]
    assert changed.rows * changed.devices * changed.accumulate == 16
    assert not (changed.nf4 and changed.strategy in ("fsdp2", "zero3"))
    assert peak(changed).total <= hardware.usable < peak(start).total


def test_nothing_is_advised_where_nothing_helps() -> None:
    giant = replace(SIZES, hidden=65536, intermediate=4 * 65536, heads=512, kv_heads=512, layers=200)
    assert (
        nearest_fit(replace(SETUP, shape=giant, devices=1, strategy="none", stage="cpt"), HARDWARE["RTX4090"]) is None
    )


def test_strategies_are_those_of_the_launch_files() -> None:
    files = ROOT / "launch" / "accelerate"
    assert strategy(str(files / "fsdp2.yaml"), 8) == "fsdp2"
    assert strategy(str(files / "zero3.yaml"), 8) == "zero3"
    assert strategy(str(files / "ddp.yaml"), 8) == "ddp"
    assert [strategy(None, 1), strategy(None, 2)] == ["none", "ddp"]


def test_devices_are_those_of_the_job() -> None:
    assert device_count(load("tiny", ["launch.num_processes=4"]).recipe) == 4
    assert device_count(load("tiny", ["launch.slurm={nodes: 2, gpus_per_node: 4}"]).recipe) == 8


def test_a_recipe_without_training_has_no_plan() -> None:
    assert plan_training(load("magpie-smollm2").recipe, []) == []


def test_dpo_holds_a_reference_only_where_the_recipe_says() -> None:
    def of(*changes: str) -> tuple[bool, bool]:
        found = setup(load("8b", list(changes)).recipe, "dpo", SIZES, devices=8, how="fsdp2")
        return found.reference, found.forward_reference

    assert of() == (False, False)
    assert of("dpo.reference=model") == (True, True)
    assert of("dpo.lora={r: 8}") == (False, True)
    assert of("dpo.lora={r: 8}", "dpo.reference=precomputed") == (False, False)


def test_numbers_are_written_with_units() -> None:
    assert [gb(1.5e9), gb(2.4e12), gb(3e6)] == ["1.5 GB", "2,400.0 GB", "3.0 MB"]
    assert [scaled(7.0e10), scaled(1.234e6), scaled(999)] == ["70.00B", "1.23M", "999"]
    assert [duration(3), duration(600), duration(36000), duration(864000)] == [
        "3.0 s",
        "10.0 min",
        "10.0 h",
        "10.0 days",
    ]
