"""The recorded recipe built once more: equal, within tolerance, or parted at a stage that is named."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posttrain.cli import main
from posttrain.errors import UserError
from posttrain.verify import rebuild as rebuilding
from posttrain.verify.compare import Comparison, Outcome, compare_stage, curve_differences
from posttrain.verify.rebuild import Rebuilt, compare, rebuild
from posttrain.verify.recorded import merged_recipe, recorded
from tests.release.made import stages_of

CURVE = {"loss": [[1, 4.0], [2, 3.0], [3, 2.0]], "eval_loss": [[3, 2.0]]}


def manifest(stage: str = "sft", digest: str = "d", **changes: Any) -> dict[str, Any]:
    return {
        "stage": stage,
        "parts": {"sft.learning_rate": "0.1", f"code {stage}": "1"},
        "inputs": {"data": {}},
        "files": {"model.safetensors": {"sha256": digest}, "config.json": {"sha256": "c"}},
        "digest": digest,
        "versions": {"torch": "1"},
        "world_size": 1,
        **changes,
    }


def came_of(
    after: dict[str, Any],
    *,
    stage: str = "sft",
    hardware: tuple[str, str] = ("a", "a"),
    curve: dict[str, Any] | None = None,
    earlier: dict[str, Outcome] | None = None,
) -> Comparison:
    builds = tuple({"hardware": {"cpu": cpu}} for cpu in hardware)
    assert len(builds) == 2
    return compare_stage(
        stage, manifest(stage), after, builds=builds, curves=(CURVE, curve or CURVE), earlier=earlier or {}
    )


def test_equal_digests_are_equal_bytes() -> None:
    assert came_of(manifest()).text == "equal, byte for byte (2 files)"


def test_other_weights_on_the_same_machine_are_different_however_close_the_losses_are() -> None:
    found = came_of(manifest(digest="e"))
    assert found.outcome == "different"
    assert found.text == "differs in model.safetensors, though hardware, versions and processes are the same"


def test_other_weights_on_another_machine_are_judged_by_their_losses() -> None:
    close = {"loss": [[1, 4.02], [2, 3.01], [3, 2.0]], "eval_loss": [[3, 2.01]]}
    found = came_of(manifest(digest="e"), hardware=("a", "b"), curve=close)
    assert found.outcome == "within"
    assert "cpu: was a, is b" in found.text
    far = {"loss": [[1, 4.0], [2, 3.0], [3, 2.0]], "eval_loss": [[3, 2.3]]}
    found = came_of(manifest(digest="e"), hardware=("a", "b"), curve=far)
    assert found.outcome == "different"
    assert "held-out loss 15.00% apart: more than 3%" in found.text
    nan = {"loss": [[1, float("nan")]], "eval_loss": []}
    assert came_of(manifest(digest="e"), hardware=("a", "b"), curve=nan).outcome == "different"


@pytest.mark.parametrize("changes", [{"versions": {"torch": "2"}}, {"world_size": 2}])
def test_other_versions_or_processes_are_a_reason_too(changes: dict[str, Any]) -> None:
    assert came_of(manifest(digest="e", **changes)).outcome == "within"


def test_curves_are_compared_where_both_have_a_step() -> None:
    found = curve_differences(CURVE, {"loss": [[2, 3.3]]})
    assert found is not None
    assert list(found) == ["training loss"]
    assert found["training loss"] == pytest.approx(0.3 / 4.0)
    assert curve_differences(CURVE, {"loss": [[9, 3.3]]}) is None


def test_rows_have_to_be_equal_and_tokens_follow_nothing() -> None:
    assert came_of(manifest("data", "e"), stage="data", hardware=("a", "b")).outcome == "different"


def test_what_is_made_from_other_weights_follows_them() -> None:
    found = came_of(manifest("ref-logps", "e", inputs={"sft": {}}), stage="ref-logps")
    assert found.outcome == "different"
    before = manifest("ref-logps", inputs={"sft": {}})
    found = compare_stage(
        "ref-logps",
        before,
        {**before, "digest": "e", "files": {}},
        builds=({"hardware": {"cpu": "a"}}, {"hardware": {"cpu": "a"}}),
        curves=(None, None),
        earlier={"sft": "within"},
    )
    assert (found.outcome, found.text) == (
        "follows",
        "differs as sft does: config.json (missing), model.safetensors (missing)",
    )


def test_another_recipe_is_said_by_its_key() -> None:
    found = came_of(manifest(parts={"sft.learning_rate": "0.2", "code sft": "1"}))
    assert found.outcome == "different"
    assert "sft.learning_rate: was 0.1, is 0.2" in found.text
    assert "another version of posttrain" in came_of(manifest(parts={"sft.learning_rate": "0.1", "code sft": "2"})).text


@pytest.fixture
def with_fakes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, no_processes: None) -> None:
    """Let the rebuild use the fake stages that the recorded build was made by."""
    from posttrain.stages.runner import run

    def run_fakes(loaded: Any, **options: Any) -> Any:
        return run(loaded, stages=stages_of(loaded, checkpoint), **options)

    monkeypatch.setattr(rebuilding, "run", run_fakes)


def again(folder: Path, *overrides: str) -> Rebuilt:
    return rebuild(folder, overrides, console=Console(file=io.StringIO()))


@pytest.mark.parametrize("what", ["", "release/instruct"])
def test_a_build_and_its_release_come_out_equal_again(
    built: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_fakes: None, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = again(built / what, f"model.base={checkpoint}")
    assert found.folder == Path("outputs/mini-rebuild")
    releases = ["release/instruct", "release/sft"] if not what else ["release/instruct"]
    stages = ["data", "tokenize-sft", "tokenize-preference", "sft", "ref-logps", "dpo", *releases]
    assert [stage.stage for stage in found.stages] == stages
    assert {stage.outcome for stage in found.stages} == {"equal"}, found.stages
    assert found.parted is None
    assert found.holds


def test_the_report_says_at_which_stage_they_part(
    built: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_fakes: None, capsys: Any
) -> None:
    """The rows are the same, and the weights of SFT are not."""
    output = Path(shutil.copytree(built, tmp_path / "recorded"))
    path = output / "sft" / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["files"]["model.safetensors"]["sha256"] = "0" * 64
    content["digest"] = "0" * 64
    path.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--verify-rebuild", str(output), f"model.base={checkpoint}", "output_dir=new"]) == 2
    printed = capsys.readouterr().out
    assert f"{output} built again in new:" in printed
    assert "data                 equal: equal, byte for byte" in printed
    assert "sft                  DIFFERENT: differs in model.safetensors, though hardware" in printed
    assert "they part at sft; not what was recorded" in printed


def test_paths_that_were_lost_have_to_be_given(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        again(built / "release" / "sft")
    assert caught.value.problems == [
        "model.base: of its path only the last name is recorded (.../tiny-base); give model.base=PATH"
    ]


def test_what_records_no_build_is_said(tmp_path: Path, built: Path) -> None:
    for folder, said in (
        (tmp_path / "none", "there is no such folder"),
        (tmp_path, "holds neither a release nor stages"),
        (built / "sft", "is one stage"),
    ):
        with pytest.raises(UserError, match=said):
            recorded(folder)


def test_the_recorded_folder_is_not_built_over(built: Path, checkpoint: Path) -> None:
    with pytest.raises(UserError, match="is what was recorded; choose another output_dir"):
        again(built, f"model.base={checkpoint}", f"output_dir={built}")


def test_a_recipe_can_be_put_together_from_the_parts_that_stages_used() -> None:
    manifests = {
        "tokenize-sft": manifest(
            "tokenize-sft", recipe={"model": {"chat_template": "chatml"}, "sft": {"max_length": 8}}
        ),
        "sft": manifest("sft", recipe={"model": {"base": ".../b#01234567"}, "sft": {"packing": "bfd"}, "seed": 3}),
        "generate": manifest("generate", recipe={"prompts": {"a": "b"}}),
    }
    for each in manifests.values():
        each["seed"] = 3
    assert merged_recipe("x", manifests) == {
        "name": "x",
        "model": {"chat_template": "chatml", "base": ".../b"},
        "sft": {"max_length": 8, "packing": "bfd"},
        "seed": 3,
        "launch": {"num_processes": 1},
    }


def test_compare_leaves_out_what_only_one_build_has(built: Path) -> None:
    old, new = recorded(built), recorded(built)
    del new.manifests["dpo"]
    assert [each.stage for each in compare(old, new, ["data", "sft", "dpo"])][:2] == ["data", "sft"]
