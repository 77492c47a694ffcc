"""Tampering with a release, each kind found and named by file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import main
from posttrain.errors import UserError
from posttrain.release.sums import SUMS, read_sums, write_sums
from posttrain.stages.fingerprint import canonical
from posttrain.verify.release import release_folders, verify

Capture = pytest.CaptureFixture[str]


def problems(folder: Path) -> list[str]:
    return verify(folder).problems


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file as someone would who knows its form."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content = change(content) or content
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_an_untouched_release_is_in_order(release: Path) -> None:
    report = verify(release)
    assert report.problems == []
    assert report.notes == ["it is not signed: what was changed together with SHA256SUMS cannot be found"]
    assert report.files == len(read_sums(release)) + 2


def test_a_flipped_bit_in_the_weights(release: Path) -> None:
    flip_bit(release / "model.safetensors")
    assert problems(release) == ["model.safetensors: was changed; SHA256SUMS has another digest"]


def test_a_flipped_bit_in_the_weights_with_new_sums_is_not_what_the_stage_recorded(release: Path) -> None:
    flip_bit(release / "model.safetensors")
    write_sums(release)
    assert problems(release) == [
        "model.safetensors: is not the weights that manifests/dpo.json recorded, though SHA256SUMS has it"
    ]


def test_a_swapped_tokenizer(release: Path) -> None:
    edit(release / "tokenizer.json", lambda content: content["model"]["vocab"].update({"the": 5}))
    assert problems(release) == ["tokenizer.json: was changed; SHA256SUMS has another digest"]
    write_sums(release)
    assert problems(release) == [
        "tokenizer.json: is not the tokenizer that manifests/dpo.json recorded, though SHA256SUMS has it"
    ]


def test_an_edited_template(release: Path) -> None:
    template = release / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert problems(release) == ["chat_template.jinja: was changed; SHA256SUMS has another digest"]
    write_sums(release)
    assert problems(release) == [
        "chat_template.jinja: is not the chat template that manifests/dpo.json recorded, though SHA256SUMS has it"
    ]


def test_a_changed_card(release: Path) -> None:
    card = release / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("lab/Mini-SFT", "lab/Max-SFT"), encoding="utf-8")
    assert problems(release) == ["README.md: was changed; SHA256SUMS has another digest"]
    write_sums(release)
    assert any(problem.startswith("README.md: ") for problem in problems(release)), "the linter finds another parent"


def test_a_missing_shard(release: Path) -> None:
    (release / "model.safetensors").unlink()
    assert "model.safetensors: is missing, and SHA256SUMS lists it" in problems(release)
    write_sums(release)
    assert "model.safetensors: is missing, and release.json lists it" in problems(release)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("notes.txt", "notes.txt: was added; SHA256SUMS does not list it"),
        ("pytorch_model.bin", "pytorch_model.bin: pickles and their like run code when they are read"),
        ("modeling_x.py", "modeling_x.py: is code, and a model that needs its own"),
        ("manifests/extra.json", "manifests/extra.json: was added; SHA256SUMS does not list it"),
    ],
)
def test_an_added_file(release: Path, name: str, said: str) -> None:
    (release / name).write_bytes(b"{}")
    assert any(problem.startswith(said) for problem in problems(release))
    if name != "notes.txt":  # which might be a licence
        write_sums(release)
        if not name.startswith("manifests/"):
            assert any(problem.startswith(said) for problem in problems(release))


def test_added_weights_that_the_release_does_not_know(release: Path) -> None:
    shutil.copy(release / "model.safetensors", release / "more.safetensors")
    write_sums(release)
    assert "more.safetensors: is a file of the model that release.json does not list" in problems(release)


def test_a_manifest_edited_together_with_the_sums(release: Path) -> None:
    """Where it breaks the chain it is found; a figure alone only the signature protects."""
    manifest = release / "manifests" / "sft.json"

    def other_rate(content: dict[str, Any]) -> None:
        content["parts"]["sft.learning_rate"] = "0.5"
        content["fingerprint"] = hashlib.sha256(canonical(content["parts"]).encode()).hexdigest()

    edit(manifest, other_rate)
    write_sums(release)
    found = problems(release)
    assert "manifests/dpo.json: was built from sft with another fingerprint than the manifest of sft has" in found

    edit(manifest, lambda content: content["parts"].update({"sft.learning_rate": "0.7"}))
    write_sums(release)
    assert problems(release) == [
        "manifests/sft.json: its fingerprint is not that of its parts: one of them was changed"
    ]


def test_the_recipe_has_to_be_that_of_the_manifests(release: Path) -> None:
    recipe = release / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("beta: 0.1", "beta: 0.2"), encoding="utf-8")
    write_sums(release)
    assert problems(release) == ["recipe.yaml: dpo.beta is 0.2, and the stage dpo was built with 0.1"]


def test_names_that_lead_elsewhere(release: Path) -> None:
    sums = release / SUMS
    sums.write_text(sums.read_text(encoding="utf-8") + f"{'0' * 64}  ../../outside\n", encoding="utf-8")
    assert any("'../../outside' is no relative name of a file in the folder" in each for each in problems(release))
    write_sums(release)
    edit(release / "release.json", lambda content: content.update(branch="../main", chain=["../../x"]))
    write_sums(release)
    found = problems(release)
    assert any(problem.startswith("release.json: branch: '../main' is no name") for problem in found)
    assert "release.json: its chain is no list of stages" in found


def test_code_in_the_configuration(release: Path) -> None:
    edit(release / "config.json", lambda content: content.update(auto_map={"AutoModelForCausalLM": "x.Y"}))
    write_sums(release)
    assert any(problem.startswith("config.json: asks for code of its own (auto_map)") for problem in problems(release))


def test_a_card_of_a_gigabyte_is_not_read(release: Path) -> None:
    with (release / "README.md").open("wb") as file:
        file.truncate(1_000_000_000)  # sparse: it takes no room
    (found,) = problems(release)
    assert found == "README.md: has 1,000 MB, and no such file needs more than 10 MB; it is not read"


def test_a_link_is_no_file_of_a_release(release: Path) -> None:
    (release / "LICENSE").unlink()
    os.symlink("/etc/hostname", release / "LICENSE")
    assert problems(release) == [
        "LICENSE: is a link, and a release holds files of its own (hf download NAME --local-dir FOLDER)"
    ]


def test_damaged_files_are_named_without_a_traceback(release: Path) -> None:
    for name in ("release.json", "manifests/sft.json", "recipe.yaml"):
        copy = release.parent / name.replace("/", "-")
        shutil.copytree(release, copy)
        (copy / name).write_bytes(b"{\xff")
        write_sums(copy)
        assert any(problem.startswith(f"{name}: ") for problem in problems(copy))


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"model_files": [[]], "format": 1, "chain": ["sft", 3]}', '{"a": {"b": 1}}']
)
@pytest.mark.parametrize("name", ["release.json", "manifests/sft.json", "results/card.json", "bom.json", "build.json"])
def test_files_of_another_form_are_problems_and_no_crash(release: Path, name: str, content: str) -> None:
    (release / name).write_text(content, encoding="utf-8")
    write_sums(release)
    found = problems(release)
    assert found or name in ("bom.json", "build.json"), "which nothing else is checked against"


def test_what_git_and_the_hub_put_beside_a_release_is_no_part_of_it(release: Path) -> None:
    (release / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (release / ".cache" / "huggingface").mkdir(parents=True)
    (release / ".cache" / "huggingface" / "x.lock").touch()
    assert problems(release) == []


def test_the_command_goes_through_all_releases_and_exits_with_2(built: Path, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    shutil.copytree(built / "release", output / "release")
    assert main(["verify", str(output)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("in order (") == 2
    flip_bit(output / "release" / "sft" / "model.safetensors")
    assert main(["verify", str(output / "release")]) == 2
    printed = capsys.readouterr().out
    assert f"{output}/release/sft: model.safetensors: was changed; SHA256SUMS has another digest" in printed
    assert f"{output}/release/sft: 1 problem (" in printed
    assert f"{output}/release/instruct: in order (" in printed


def test_what_is_no_release_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, said in ((tmp_path, "holds no release"), (tmp_path / "file", "a file"), (tmp_path / "no", "not there")):
        with pytest.raises(UserError, match=said):
            release_folders(folder)
