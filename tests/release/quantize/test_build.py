"""Building variants: what one failing does to the others, what an interruption leaves, and what is recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.recipe.schema_quantize import HeldOut, TextSet, Variant
from posttrain.release.quantize import build as build_module
from posttrain.release.quantize.build import build
from posttrain.release.quantize.process import WorkerFailed
from tests.release.quantize.conftest import SAMPLES, MakeTask
from tests.release.quantize.saved import save_as_gptqmodel

FOUR, EIGHT = Variant(bits=4, group_size=64), Variant(bits=8, group_size=-1)


class Scripted:
    """Stands for the worker's processes: `fails` says which job fails of what, `jobs` which were run."""

    def __init__(self) -> None:
        self.fails: dict[str, str] = {}
        self.jobs: list[str] = []
        self.losses = {"base": 2.0}

    def __call__(self, work: Path, **_: Any) -> Scripted:
        self.work = work
        return self

    def log(self, name: str) -> Path:
        return self.work / f"{name}.log"

    def run(self, kind: str, name: str, job: dict[str, Any]) -> dict[str, Any]:
        self.jobs.append(name)
        if name in self.fails:
            raise WorkerFailed(self.fails[name])
        if kind == "quantise":
            save_as_gptqmodel(Path(job["target"]), Path(job["source"]), job["variant"])
            return {"threads": 1, "layers": 14}
        found: dict[str, Any] = {"new_tokens": 3} if job["prompt"] else {}
        if job["rows"]:
            found |= {"loss": self.losses.get(name, 2.1), "tokens": 126}
        return found


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    scripted = Scripted()
    monkeypatch.setattr(build_module, "Worker", scripted)
    return scripted


def variants(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "variants.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_what_is_recorded(worker: Scripted, task: MakeTask) -> None:
    asked = task(FOUR, EIGHT)
    figures = build(asked)
    content = variants(asked.folder)
    assert content["base"]["perplexity"]["value"] == round(math.exp(2.0), 4)
    four, eight = content["variants"]
    assert (four["name"], eight["name"]) == ("gptq-4bit-64g-actorder_True", "gptq-8bit--1g-actorder_True")
    assert (four["bits"], four["group_size"], four["desc_act"], four["damp_percent"]) == (4, 64, True, 0.1)
    assert four["perplexity_ratio"] == round(math.exp(0.1), 4)
    assert four["backends"] == {"auto": {"generates": True}, "torch": {"generates": True}}
    assert (four["exllama"], eight["exllama"]) == (True, False)
    assert (four["default"], eight["default"]) == (True, False)
    assert four["bytes"] == (asked.folder / four["name"] / "model.safetensors").stat().st_size
    assert content["calibration"]["samples"] == 4
    assert content["heldout"]["samples"] == 2
    assert content["calibration"]["ids_sha256"] != content["heldout"]["ids_sha256"]
    assert figures["gptq-4bit-64g-actorder_True/threads"] == 1
    assert figures["failed"] == {}
    text = (asked.folder / "variants.json").read_text(encoding="utf-8")
    assert "seconds" not in text
    assert str(asked.folder.parent) not in text


def test_a_variant_that_fails_does_not_stop_the_others(worker: Scripted, task: MakeTask) -> None:
    worker.fails = {FOUR.name: "RuntimeError: no"}
    asked = task(FOUR, EIGHT, default=FOUR.name)
    assert build(asked)["failed"] == {FOUR.name: "RuntimeError: no"}
    four, eight = variants(asked.folder)["variants"]
    assert (four["failed"], four["perplexity"], four["default"]) == ("RuntimeError: no", None, False)
    assert four["advice"].endswith("do not use it, RuntimeError: no.")
    assert (eight["failed"], eight["default"]) == (None, True)
    assert not (asked.folder / FOUR.name).exists()
    assert (asked.folder / EIGHT.name / "model.safetensors").is_file()


def test_a_kernel_that_fails_is_recorded_with_its_reason(worker: Scripted, task: MakeTask) -> None:
    worker.fails = {f"{EIGHT.name}.auto": "RuntimeError: shapes"}
    asked = task(EIGHT)
    build(asked)
    (eight,) = variants(asked.folder)["variants"]
    assert eight["backends"]["auto"] == {"generates": False, "reason": "RuntimeError: shapes"}
    assert eight["failed"] is None
    assert "backend=torch; it does not generate with auto, as is common without groups" in eight["advice"]


def test_perplexity_needs_no_kernel_of_the_recipe(worker: Scripted, task: MakeTask) -> None:
    asked = task(FOUR, backends=["auto"])
    build(asked)
    assert worker.jobs == ["base", FOUR.name, f"{FOUR.name}.auto", f"{FOUR.name}.perplexity"]


def test_a_variant_that_generates_with_nothing_has_failed_and_is_not_left(worker: Scripted, task: MakeTask) -> None:
    worker.fails = {f"{FOUR.name}.{backend}": "no" for backend in ("auto", "torch")}
    asked = task(FOUR)
    with pytest.raises(UserError, match=r"no variant works.*it generates with no backend") as caught:
        build(asked)
    assert str(asked.work / "jobs") in caught.value.problems[-1]
    assert not (asked.folder / FOUR.name).exists()
    assert not (asked.folder / "variants.json").exists()


def test_an_infinite_perplexity_is_a_failure(worker: Scripted, task: MakeTask) -> None:
    worker.losses[f"{FOUR.name}.torch"] = math.nan
    asked = task(FOUR, EIGHT)
    assert build(asked)["failed"] == {FOUR.name: "its perplexity is not a number"}


def test_what_was_finished_is_not_done_again(worker: Scripted, task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = task(FOUR, EIGHT)
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "_finish", _killed)
        patch.setitem(worker.fails, EIGHT.name, "killed")
        with pytest.raises(KeyboardInterrupt):
            build(asked)
    before = (asked.folder / FOUR.name / "model.safetensors").stat().st_mtime_ns
    worker.jobs.clear()
    build(asked)
    assert worker.jobs == [EIGHT.name, f"{EIGHT.name}.auto", f"{EIGHT.name}.torch"]
    assert (asked.folder / FOUR.name / "model.safetensors").stat().st_mtime_ns == before
    whole = task(FOUR, EIGHT, at="other")
    build(whole)
    assert (asked.folder / "variants.json").read_bytes() == (whole.folder / "variants.json").read_bytes()


def _killed(*_: object) -> dict[str, Any]:
    raise KeyboardInterrupt


def test_what_was_quantised_is_only_measured_again(
    worker: Scripted, task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = task(FOUR)
    with monkeypatch.context() as patch:
        patch.setattr(build_module._Variant, "_measured", _killed)
        with pytest.raises(KeyboardInterrupt):
            build(asked)
    worker.jobs.clear()
    build(asked)
    assert worker.jobs == [f"{FOUR.name}.auto", f"{FOUR.name}.torch"]


def test_rows_longer_than_the_models_positions_are_refused(worker: Scripted, task: MakeTask) -> None:
    asked = task(calibration=TextSet(path=SAMPLES, length=300), heldout=HeldOut(length=400))
    with pytest.raises(UserError) as caught:
        build(asked)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "quantize.calibration.length",
        "quantize.heldout.length",
    ]
    assert "256" in caught.value.problems[0]
    assert not worker.jobs


def test_groups_that_divide_no_layer_are_flagged_before_anything_is_built(worker: Scripted, task: MakeTask) -> None:
    said: list[str] = []
    wide = Variant(bits=4, group_size=128)
    asked = replace(task(wide, EIGHT, FOUR), say=said.append)
    build(asked)
    found = {row["name"]: row["undivided"] for row in variants(asked.folder)["variants"]}
    narrow = ["gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert found == {wide.name: narrow, EIGHT.name: [], FOUR.name: []}
    assert said[0].startswith("warning: gptq-4bit-128g-actorder_True: groups of 128 do not divide the 64 input columns")
    assert said[1] == (
        "warning: gptq-8bit--1g-actorder_True: without groups, so expect it to load with the torch kernel alone"
    )
    assert not said[2].startswith("warning")
