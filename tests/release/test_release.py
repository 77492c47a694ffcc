"""The release stage: what is in a folder, that it says nothing of the machine, and comes out the same anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from posttrain.errors import UserError
from posttrain.recipe import load
from posttrain.release.layout import ABOUT, CONSTRAINTS
from posttrain.release.sums import BUILD, SUMS, read_sums, release_files
from posttrain.stages import Manifest
from tests.helpers import ROOT
from tests.release.made import RECIPE, build_chain

MODEL = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_a_folder_has_the_model_and_what_describes_it(built: Path) -> None:
    assert {path.name for path in (built / "release").iterdir()} == {"sft", "instruct", "manifest.json"}
    for name, stage in (("sft", "sft"), ("instruct", "dpo")):
        folder = built / "release" / name
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        assert set(about["model_files"]) == MODEL
        assert about["stage"] == stage
        assert about["repository"] == f"lab/Mini-{'SFT' if name == 'sft' else 'Instruct'}"
        assert about["chain"] == ["data", "tokenize-sft", "tokenize-preference", "sft", "ref-logps", "dpo"]
        recorded = Manifest.read(built / name).files
        sums = read_sums(folder)
        assert all(sums[file] == recorded[file]["sha256"] for file in MODEL)
        assert (folder / CONSTRAINTS).read_bytes() == (ROOT / CONSTRAINTS).read_bytes()
        assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
        assert not {"loss.png", "history.json"} & set(release_files(folder))


def test_sha256sum_reads_the_sums_and_they_are_of_every_file_but_the_volatile(built: Path) -> None:
    folder = built / "release" / "sft"
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr
    names = list(read_sums(folder))
    assert names == sorted(names)
    assert set(release_files(folder)) - set(names) == {SUMS, BUILD}


def test_two_builds_in_different_folders_are_equal_in_every_byte(
    built: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_processes: None
) -> None:
    moved = Path(shutil.copytree(checkpoint, tmp_path / "elsewhere" / checkpoint.name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "below").mkdir(parents=True)
    again = build_chain(moved, tmp_path / "far" / "below" / "again")
    for name in ("sft", "instruct"):
        one, two = built / "release" / name, again / "release" / name
        assert release_files(one) == release_files(two)
        different = [file for file in release_files(one) if (one / file).read_bytes() != (two / file).read_bytes()]
        assert different in ([], [BUILD])
    assert Manifest.read(built / "release").digest == Manifest.read(again / "release").digest
    assert (built / "release/sft" / BUILD).read_text() != (again / "release/sft" / BUILD).read_text(), "it has times"


def test_nothing_but_build_json_has_times_hardware_or_speed(built: Path) -> None:
    folder = built / "release" / "instruct"
    for file in release_files(folder):
        if file.endswith((".json", ".yaml", ".md")) and file != BUILD:
            text = (folder / file).read_text(encoding="utf-8")
            assert "tokens_per_second" not in text
            assert '"started"' not in text
            assert '"hardware"' not in text
            assert '"commit"' not in text
            assert str(built) not in text
    build = json.loads((folder / BUILD).read_text(encoding="utf-8"))
    assert build["stages"]["dpo"]["metrics"] == {"tokens_per_second": 12.5}
    assert build["curves"]["dpo"]["loss"] == [[1, 2.5]]
    assert build["answer"]["stopped"] is True


def test_the_recipe_of_a_release_loads_as_the_same_recipe(built: Path, checkpoint: Path, tmp_path: Path) -> None:
    path = built / "release" / "sft" / "recipe.yaml"
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["base"] == f".../{checkpoint.name}"
    original = tmp_path / "mini.yaml"
    original.write_text(RECIPE.format(base=checkpoint), encoding="utf-8")
    assert load(path, [f"model.base={checkpoint}"]).recipe == load(original).recipe


def test_a_file_changed_after_its_stage_is_refused(
    built: Path, checkpoint: Path, tmp_path: Path, no_processes: None
) -> None:
    output = tmp_path / "out"
    shutil.copytree(built, output)
    shutil.rmtree(output / "release")
    template = output / "sft" / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("user", "usor", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"release of sft: chat_template\.jinja: was changed after the stage had ended"):
        build_chain(checkpoint, output)
    assert not (output / "release").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("release.license=null", "release.license: under which licence are the weights published?"),
        ("release.license=llama3.1", "the text of Llama 3.1 Community License"),
        ("release.name=../up", "release.name: '../up' is no name"),
        ("release.org=a/b", "release.org: 'a/b' is no name"),
        ("release.base_model=null", "release.base_model: model.base is the folder"),
        ("release.checkpoints=[instruct,other]", "the recipe makes no 'other', only sft or instruct"),
        ("release.checkpoints=[]", "there is nothing to release"),
        ("release.signing={method: key}", "release.signing.key: give the PEM file"),
        ("release.license_files=[missing.txt]", "there is no file or folder 'missing.txt'"),
    ],
)
def test_what_cannot_be_released_is_known_before_anything_is_built(
    checkpoint: Path, tmp_path: Path, override: str, said: str
) -> None:
    output = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        build_chain(checkpoint, output, override)
    assert any(said in problem for problem in caught.value.problems), caught.value.problems
    assert not output.exists()


def test_an_adapter_is_not_released_and_the_rest_may_be(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"release: sft\.lora\.merge is false, and an adapter alone"):
        build_chain(checkpoint, tmp_path / "out", "sft.lora={merge: false}", "dpo.lora={}", "dpo.reference=model")
