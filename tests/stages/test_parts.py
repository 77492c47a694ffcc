"""The graph of a real recipe, fingerprints, digests and the check of the batch arithmetic."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.differences import changed_parts
from posttrain.errors import UserError
from posttrain.recipe.schema import Cpt, Data, Dpo, Lora, Model, NewModel, Recipe, Sft, TextSource
from posttrain.stages import chain, checks
from posttrain.stages.digest import Digests, visible_files
from posttrain.stages.external import external
from posttrain.stages.fingerprint import fingerprint
from posttrain.stages.graph import NO_EFFECT_ON_OUTPUT
from posttrain.stages.portable import portable
from posttrain.stages.selection import select

ENTRY = {"source": "generic", "path": "org/rows"}


def recipe(**changes: Any) -> Recipe:
    """Return a recipe with every stage."""
    values: dict[str, Any] = {
        "name": "full",
        "model": Model(new=NewModel(), chat_template="chatml"),
        "cpt": Cpt(text=[TextSource(path="org/text")]),
        "data": Data(sft=[ENTRY], preference=[ENTRY]),
        "sft": Sft(),
        "dpo": Dpo(),
    }
    return Recipe(**{**values, **changes})


def test_a_stage_is_built_with_what_it_needs_and_no_more() -> None:
    stages = chain(recipe())
    assert [stage.name for stage in select(stages, target="data").wanted] == ["data"]
    assert [stage.name for stage in select(stages, target="sft").wanted] == ["data", "cpt", "tokenize-sft", "sft"]
    both = select(stages, target=["tokenize-sft", "tokenize-preference"]).wanted
    assert [stage.name for stage in both] == ["data", "cpt", "tokenize-sft", "tokenize-preference"]
    with pytest.raises(UserError, match="--force cpt: this command is about data only"):
        select(stages, target="data", force=["cpt"])


def fingerprints(of: Recipe) -> dict[str, str]:
    """Return the fingerprint of every stage, with no files from outside."""
    found: dict[str, str] = {}
    for stage in chain(of):
        found[stage.name] = fingerprint(stage, dataclasses.asdict(of), found, {}).value
    return found


def changed(**changes: Any) -> set[str]:
    """Return the stages whose fingerprint a change of the recipe changes."""
    before, after = fingerprints(recipe()), fingerprints(recipe(**changes))
    return {name for name in before if before[name] != after[name]}


def test_chain_has_what_the_recipe_asks_for() -> None:
    assert [(stage.name, stage.folder, stage.inputs) for stage in chain(recipe())] == [
        ("data", "data", ()),
        ("cpt", "base", ()),
        ("tokenize-sft", "tokens-sft", ("cpt", "data")),
        ("tokenize-preference", "tokens-preference", ("cpt", "data")),
        ("sft", "sft", ("cpt", "tokenize-sft")),
        ("ref-logps", "ref_logps", ("cpt", "sft", "tokenize-preference")),
        ("dpo", "instruct", ("cpt", "sft", "tokenize-preference", "ref-logps")),
    ]
    assert chain(recipe(sft=None))[-1].inputs == ("cpt", "tokenize-preference", "ref-logps")


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, True),
        ({"lora": Lora()}, False),
        ({"lora": Lora(), "reference": "precomputed"}, True),
        ({"reference": "model"}, False),
        ({"trainer": {"sync_ref_model": True}}, False),
    ],
    ids=str,
)
def test_reference_log_probabilities_are_a_stage_where_they_are_used(settings: dict[str, Any], there: bool) -> None:
    names = [stage.name for stage in chain(recipe(dpo=Dpo(**settings)))]
    assert ("ref-logps" in names) is there
    assert ("ref-logps" in chain(recipe(dpo=Dpo(**settings)))[-1].inputs) is there


def test_tokens_of_a_given_tokenizer_come_before_the_base_model() -> None:
    given = chain(recipe(model=Model(base="org/model", chat_template="chatml")))
    assert [(stage.name, stage.inputs) for stage in given[:4]] == [
        ("data", ()),
        ("tokenize-sft", ("data",)),
        ("tokenize-preference", ("data",)),
        ("cpt", ()),
    ]
    names = [stage.name for stage in chain(recipe(model=Model(base="org/model"), cpt=None, dpo=None))]
    assert names == ["data", "tokenize-sft", "sft"]


def test_a_change_rebuilds_what_it_concerns_and_what_follows() -> None:
    trained, tokens = {"cpt", "sft", "ref-logps", "dpo"}, {"tokenize-sft", "tokenize-preference"}
    everything = {"data"} | trained | tokens
    assert changed(seed=1) == everything
    assert changed(cpt=Cpt(text=[TextSource(path="org/text")], learning_rate=1.0)) == trained | tokens
    assert changed(data=Data(sft=[{**ENTRY, "max_rows": 5}], preference=[ENTRY])) == everything - {"cpt"}
    assert changed(sft=Sft(loss_on="all")) == {"tokenize-sft", "sft", "ref-logps", "dpo"}
    assert changed(sft=Sft(learning_rate=1.0)) == {"sft", "ref-logps", "dpo"}
    assert changed(dpo=Dpo(max_length=5)) == {"tokenize-preference", "ref-logps", "dpo"}
    assert changed(dpo=Dpo(beta=0.5)) == {"dpo"}
    assert changed(dpo=Dpo(trainer={"ld_alpha": 0.5})) == {"ref-logps", "dpo"}
    assert changed(dpo=Dpo(reference="precomputed", lora=Lora())) == {"ref-logps", "dpo"}
    assert changed(name="other", output_dir="elsewhere", report_to=["wandb"]) == set()
    for key in NO_EFFECT_ON_OUTPUT:
        setting: dict[str, Any] = {key: 77}
        assert changed(sft=Sft(**setting)) == set()


def test_version_of_the_code_counts() -> None:
    stage = chain(recipe())[0]
    values = dataclasses.asdict(recipe())
    old = fingerprint(stage, values, {}, {})
    new = fingerprint(dataclasses.replace(stage, version=stage.version + 1), values, {}, {})
    assert changed_parts(old.parts, new.parts) == ["code data"]


@pytest.mark.parametrize(
    ("batch", "processes", "fits"), [(32, 1, True), (32, 3, False), (32, 64, False), (12, 3, True)]
)
def test_global_batch_is_reached_by_whole_steps(batch: int, processes: int, fits: bool) -> None:
    problems = checks.training("sft")(recipe(sft=Sft(global_batch_size=batch)), processes)
    assert (problems == []) is fits
    if not fits:
        assert problems[0].startswith(f"sft.global_batch_size: {batch} is not a multiple of {processes} ")


def test_source_that_cannot_be_read_is_found_beforehand(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("x")
    wrong = recipe(data=Data(sft=[{"source": "generic", "path": str(tmp_path / "rows.xlsx")}]))
    (problem,) = checks.readable_sources(wrong, 1)
    assert problem.startswith("data.sft.0.path: ")


def test_paths_and_hub_ids_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert external("k", "models/mine").missing() is None
    assert external("k", "models/mine").path is not None
    for hub_id in ("org/model-1.5B", "gpt2"):
        assert external("k", hub_id).path is None
    for missing in ("models/other", "rows.jsonl", "./model", "/no/where", "a/b/c", "builtin:samples/none.jsonl"):
        problem = external("data.sft.0.path", missing).missing()
        assert problem is not None
        assert problem.startswith(f"data.sft.0.path: there is no file or folder '{missing}'")


def age(path: Path, seconds: int) -> None:
    """Set a file's modification time into the past."""
    os.utime(path, ns=(0, 10**18 - seconds * 10**9))


def test_digest_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, store = tmp_path / "rows", tmp_path / "store" / "digests.json"
    file.write_text("one")
    age(file, 100)
    first = Digests(store).of(file)
    monkeypatch.setattr("posttrain.stages.digest.sha256_file", lambda path: pytest.fail("read again"))
    assert Digests(store).of(file) == first
    monkeypatch.undo()
    file.write_text("two")
    age(file, 50)
    assert Digests(store).of(file) != first


def test_digest_of_a_fresh_file_is_not_remembered(tmp_path: Path) -> None:
    file, store = tmp_path / "rows", tmp_path / "digests.json"
    file.write_text("one")
    stamp = file.stat().st_mtime_ns
    first = Digests(store).of(file)
    file.write_text("two")
    os.utime(file, ns=(stamp, stamp))  # the same size and time stamp
    assert Digests(store).of(file) != first


@pytest.mark.parametrize("damage", ["{", "[1]", json.dumps({"x": 3})])
def test_damaged_digest_store_is_replaced(tmp_path: Path, damage: str) -> None:
    file, store = tmp_path / "rows", tmp_path / "digests.json"
    file.write_text("one")
    age(file, 100)
    expected = Digests(tmp_path / "other.json").of(file)
    store.write_text(damage)
    assert Digests(store).of(file) == expected
    assert str(file) in json.loads(store.read_text())


def test_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, name in enumerate(("a", "b", "a")):
        folder = tmp_path / str(number)
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / name).write_text("x")
        (folder / ".hidden").write_text(str(number))
        assert [path.name for path in visible_files(folder)] == [name]
        digests.add(Digests(tmp_path / "store.json").of(folder))
    assert len(digests) == 2


def test_portable_values() -> None:
    values = portable({"a": ["/home/me/model", "/think", "org/model", 3, None], "b": "/home/you/model"})
    assert values["a"][1:] == ["/think", "org/model", 3, None]
    assert values["a"][0].startswith(".../model#")
    assert values["a"][0] != values["b"]


def test_nothing_heavy_is_imported_to_look(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.stages.fakes import FakeStages, loaded\n"
        "from posttrain.stages import run\n"
        "run(loaded(Path(sys.argv[1])), stages=FakeStages().chain())\n"
        "heavy = {'torch', 'transformers', 'datasets', 'trl', 'accelerate', 'pyarrow', 'matplotlib', 'numpy'}\n"
        "sys.exit(', '.join(sorted(heavy & sys.modules.keys())) or None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=True, timeout=30)
