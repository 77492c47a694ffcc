"""Reuse, resume, force, ranges, and what is refused, in one process."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.stages import Manifest, run, survey
from posttrain.stages.context import Context
from tests.stages.fakes import FakeLoaded, FakeStages, loaded


def build(recipe: FakeLoaded, stages: FakeStages | None = None, **options: Any) -> list[str]:
    """Run a chain and return the builds."""
    stages = stages or FakeStages()
    run(recipe, stages=stages.chain(), **options)
    return stages.built


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file but those of the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def fail(context: Context) -> None:
    """Fail in the middle."""
    raise KeyboardInterrupt


def test_second_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = loaded(tmp_path / "out")
    assert build(recipe) == ["rows", "train", "tune"]
    before = snapshot(tmp_path / "out")
    capsys.readouterr()
    assert build(recipe) == []
    assert capsys.readouterr().out.startswith("nothing to do: data, sft, instruct")
    assert snapshot(tmp_path / "out") == before


def test_same_recipe_gives_same_digests(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(loaded(tmp_path / name))
    for folder in ("data", "sft", "instruct"):
        a, b = (Manifest.read(tmp_path / name / folder) for name in ("a", "b"))
        assert (a.fingerprint, a.digest) == (b.fingerprint, b.digest)
        assert a.files.keys() == b.files.keys()
    assert Manifest.read(tmp_path / "a" / "sft").files["log.txt"]["volatile"] is True


def test_interrupted_training_is_resumed_and_ends_the_same(tmp_path: Path) -> None:
    recipe, whole = loaded(tmp_path / "cut"), loaded(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        build(recipe, FakeStages(hooks={"train": fail}))
    assert not (tmp_path / "cut" / "sft").exists()
    states = [status.state for status in survey(recipe, stages=FakeStages().chain())]
    assert states == ["reuse", "resume", "build"]
    assert build(recipe) == ["train+", "tune"]
    build(whole)
    cut = Manifest.read(tmp_path / "cut" / "sft")
    assert cut.digest == Manifest.read(tmp_path / "whole" / "sft").digest
    assert cut.metrics == {"first": 2}
    assert not (tmp_path / "cut" / ".building").exists()
    assert not list((tmp_path / "cut").rglob(".work"))


def test_interrupted_stage_that_does_not_train_starts_afresh(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)

    def leave_and_fail(context: Context) -> None:
        (context.folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(recipe, FakeStages(hooks={"rows": leave_and_fail}))
    assert build(recipe, until="rows") == ["rows"]
    assert set(Manifest.read(tmp_path / "data").files) == {"rows.txt"}


def test_interrupted_training_is_not_continued_on_other_rows(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build(recipe, FakeStages(hooks={"train": fail}))
    assert build(recipe, FakeStages(salt="!"), force=["rows"]) == ["rows", "train", "tune"]
    assert Manifest.read(tmp_path / "sft").metrics == {"first": 0}


def test_unfinished_build_of_another_recipe_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(loaded(tmp_path, learning_rate=0.1), FakeStages(hooks={"train": fail}))
    assert build(loaded(tmp_path, learning_rate=0.2)) == ["train", "tune"]
    assert "an unfinished build from something else stays in" in capsys.readouterr().out
    assert len(list((tmp_path / ".building").glob("sft-*"))) == 1


def test_complete_build_that_was_not_renamed_is_put_in_place(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    build(recipe)
    building = survey(recipe, stages=FakeStages().chain())[2].building
    assert building is not None
    building.parent.mkdir()
    (tmp_path / "instruct").rename(building)
    assert build(recipe) == []
    assert (tmp_path / "instruct" / "manifest.json").exists()


def test_other_recipe_is_refused_naming_what_changed(tmp_path: Path) -> None:
    build(loaded(tmp_path, learning_rate=0.001))
    before = snapshot(tmp_path)
    stages = FakeStages()
    with pytest.raises(UserError) as caught:
        build(loaded(tmp_path, learning_rate=0.002, weight_decay=0.1), stages)
    assert stages.built == []
    assert snapshot(tmp_path) == before
    first, second, ways_out = caught.value.problems
    assert first.startswith("train: ")
    assert "sft.learning_rate: was 0.001, is 0.002; sft.weight_decay: was 0.0, is 0.1" in first
    assert second.startswith("tune: ")
    assert "output_dir=" in ways_out
    assert "--force train (" in ways_out


def test_settings_without_effect_rebuild_nothing(tmp_path: Path) -> None:
    build(loaded(tmp_path))
    changed = loaded(tmp_path, logging_steps=1, eval_steps=3, save_steps=7, save_total_limit=1)
    assert build(changed) == []


def test_force_rebuilds_what_follows_if_the_result_differs(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    build(recipe)
    old = snapshot(tmp_path / "sft")
    assert build(recipe, force=["rows"]) == ["rows"], "the same rows: what was built from them is still right"
    assert build(recipe, FakeStages(salt="!"), force=["rows"]) == ["rows", "train", "tune"]
    kept = sorted(path.name.rpartition("-")[0] or path.name for path in (tmp_path / ".replaced").iterdir())
    assert len(kept) == 4  # rows twice, train, tune
    (former,) = (tmp_path / ".replaced").glob("sft-*")
    assert snapshot(former) == old
    assert "rows of seed 42!" in (tmp_path / "sft" / "model-0.txt").read_text()


def test_result_of_a_forced_input_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    build(recipe)
    build(recipe, FakeStages(salt="!"), force=["rows"], until="rows")
    with pytest.raises(UserError, match=r"train: .* made from something else .*rows, which it is built from, changed"):
        build(recipe)
    assert build(recipe, force=["train"]) == ["train", "tune"]


def test_forced_stage_replaces_one_of_another_recipe(tmp_path: Path) -> None:
    build(loaded(tmp_path, learning_rate=0.1))
    assert build(loaded(tmp_path, learning_rate=0.2), force=["train"]) == ["train", "tune"]
    assert build(loaded(tmp_path, learning_rate=0.2)) == []


def test_old_folder_stays_until_the_forced_one_is_complete(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    build(recipe)
    old = snapshot(tmp_path / "sft")
    with pytest.raises(KeyboardInterrupt):
        build(recipe, FakeStages(hooks={"train": fail}), force=["train"])
    assert snapshot(tmp_path / "sft") == old
    assert build(recipe) == []
    assert build(recipe, force=["train"]) == ["train+"]


def test_ranges(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    with pytest.raises(UserError) as caught:
        build(recipe, from_="train")
    (problem,) = caught.value.problems
    assert problem.startswith("rows: it is not there yet, and this command starts after it")
    assert problem.endswith("posttrain run fake.yaml --until rows")
    assert not list(tmp_path.iterdir())
    assert build(recipe, until="rows") == ["rows"]
    assert build(recipe, target="train") == ["train"]
    assert build(recipe, from_="train") == ["tune"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"from_": "trian"}, "--from trian: the recipe has no such stage, only rows, train, tune; did you mean train?"),
        ({"from_": "tune", "until": "rows"}, "--from tune comes after --until rows"),
        ({"until": "rows", "force": ["train"]}, "--force train: this command is about rows only"),
    ],
)
def test_impossible_ranges(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(loaded(tmp_path / "out"), **options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_problems_known_in_advance_come_together_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        build(loaded(tmp_path / "out", base="./no/model", global_batch_size=7))
    assert caught.value.problems == [
        "model.base: there is no file or folder './no/model'; correct the path",
        "sft.global_batch_size: it is odd",
    ]
    assert not (tmp_path / "out").exists()


def test_input_that_cannot_be_built_leaves_nothing(tmp_path: Path) -> None:
    def refuse(context: Context) -> None:
        raise UserError("no row is usable")

    with pytest.raises(UserError, match="no row is usable"):
        build(loaded(tmp_path / "out"), FakeStages(hooks={"rows": refuse}))
    assert not (tmp_path / "out").exists()


def test_folder_of_somebody_else_is_refused_even_by_force(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "thesis.txt").write_text("mine")
    for force in ([], ["train"]):
        with pytest.raises(UserError, match=r"train: .*sft has no manifest.json"):
            build(loaded(tmp_path), force=force)
    assert snapshot(tmp_path) == {"sft/thesis.txt": b"mine"}


def test_damaged_folder_is_refused_and_can_be_rebuilt(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    build(recipe)
    (tmp_path / "sft" / "model-0.txt").write_text("cut")
    with pytest.raises(UserError, match=r"model-0.txt has 3 bytes instead of \d+.*--force train"):
        build(recipe)
    (tmp_path / "sft" / "model-0.txt").unlink()
    with pytest.raises(UserError, match=r"model-0.txt is missing"):
        build(recipe)
    assert build(recipe, force=["train"]) == ["train"]
    assert build(recipe) == []


def test_unreadable_manifest_is_refused(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    build(recipe)
    (tmp_path / "data" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"rows: .*manifest\.json cannot be read"):
        build(recipe)


def test_survey_writes_nothing(tmp_path: Path) -> None:
    statuses = survey(loaded(tmp_path / "out"), stages=FakeStages().chain())
    assert [status.state for status in statuses] == ["build", "build", "build"]
    assert list(tmp_path.iterdir()) == []


def test_content_of_a_local_model_counts_and_not_its_place(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("w")
    build(loaded(tmp_path / "out", base=str(tmp_path / "here")))
    assert build(loaded(tmp_path / "out", base=str(tmp_path / "there"))) == []
    (tmp_path / "there" / "weights").write_text("v")
    with pytest.raises(UserError, match=r"train: .*model.base: the content of .*there changed"):
        build(loaded(tmp_path / "out", base=str(tmp_path / "there")))


def test_manifest_tells_all_and_nothing_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("w")

    def report(context: Context) -> None:
        context.provenance({"path": str(tmp_path / "model" / "weights"), "rows": 3})

    recipe = loaded(tmp_path / "out", base=str(tmp_path / "model"), trainer={"deepspeed": str(tmp_path / "ds.json")})
    build(recipe, FakeStages(hooks={"train": report}))
    text = (tmp_path / "out" / "sft" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    content = json.loads(text)
    assert list(content) == sorted(content)
    assert content["sources"][0]["rows"] == 3
    assert content["parts"]["sft.learning_rate"] == "1e-05"
    assert content["recipe"]["sft"]["learning_rate"] == 1e-05
    assert content["inputs"]["rows"]["digest"] == Manifest.read(tmp_path / "out" / "data").digest
    assert {"torch", "trl", "python"} <= content["versions"].keys()
    assert content["times"]["seconds"] >= 0
    assert "manifest.json" not in content["files"]


def test_value_from_the_environment_counts_and_is_not_recorded(tmp_path: Path) -> None:
    first = dataclasses.replace(loaded(tmp_path), secret="hunter2")
    build(first)
    assert build(first) == []
    assert b"hunter2" not in b"".join(snapshot(tmp_path).values())
    with pytest.raises(UserError, match=r"sft\.trainer\.hub_token: was \"sha256:") as caught:
        build(dataclasses.replace(first, secret="hunter3"))
    assert "hunter" not in str(caught.value)
