"""Names, the search for private things, licences, and the bill of materials."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.recipe import load
from posttrain.recipe.schema import Model, Recipe, Release
from posttrain.release import scan as scanning
from posttrain.release.bom import bill_of_materials
from posttrain.release.checkpoints import find_checkpoints, working
from posttrain.release.licence import terms
from posttrain.release.names import file_problem, name_problem, repository_name
from posttrain.release.recipe_text import portable_recipe, recipe_yaml, secrets_of
from posttrain.release.scan import private, scan
from posttrain.release.split import split
from posttrain.release.sums import SUMS, read_sums


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "x.lock", "a\nb", "ä", "a" * 97, "x..y"])
def test_names_that_could_lead_elsewhere_are_none(name: str) -> None:
    assert name_problem(name) is not None


def test_names_of_variants_and_repositories() -> None:
    assert name_problem("gptq-4bit-64g-actorder_True") is None
    assert name_problem("gptq-4bit--1g-actorder_True") is None, "without groups"
    assert name_problem("gptq-4bit--1g-actorder_True", repository=True) is not None
    assert repository_name("Poro", "instruct") == "Poro-Instruct"
    assert repository_name("Poro", "variant", of="instruct") == "Poro-Instruct-GPTQ"
    assert repository_name("Poro-34B", "variant") == "Poro-34B-GPTQ"


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "a//b", "./a", "a\\b", "", ".", "a\x07"])
def test_files_that_are_not_in_the_folder(name: str) -> None:
    assert file_problem(name) is not None
    assert file_problem("manifests/sft.json") is None


def test_sums_with_names_that_lead_out_are_refused(tmp_path: Path) -> None:
    good = f"{'a' * 64}  x.json\n"
    (tmp_path / SUMS).write_text(f"{good}{good}{'b' * 64}  ../y\nnonsense\n")
    with pytest.raises(UserError) as caught:
        read_sums(tmp_path)
    assert [each.partition(": ")[0] for each in caught.value.problems] == [f"{SUMS}:2", f"{SUMS}:3", f"{SUMS}:4"]


def test_names_of_variants_from_a_file_are_checked() -> None:
    records = [{"name": "../../up", "failed": None}, {"name": "good", "failed": None}]
    with pytest.raises(UserError, match=r"quantize: '\.\./\.\./up' is no name"):
        working(records, None)


def test_variants_that_work_are_released_and_one_of_them_is_the_default() -> None:
    records: list[dict[str, Any]] = [
        {"name": "a", "failed": "no backend", "default": True},
        {"name": "b", "failed": None, "default": False},
        {"name": "c", "failed": None, "default": False},
    ]
    assert [(each["name"], each["default"]) for each in working(records, None)] == [("b", True), ("c", False)]
    assert [each["name"] for each in working(records, ["c"])] == ["c"]


def test_variants_of_a_model_from_elsewhere_have_a_repository_with_branches(tmp_path: Path) -> None:
    folder = tmp_path / "quantized"
    folder.mkdir()
    names = ("gptq-4bit-128g-actorder_True", "gptq-8bit-128g-actorder_True")
    records = [{"name": name, "failed": None, "default": name == names[1]} for name in names]
    (folder / "variants.json").write_text(json.dumps({"format": 1, "of": "base", "variants": records}))
    recipe = Recipe(name="poro", model=Model(base="LumiOpen/Poro-34B"), release=Release(name="Poro-34B", org="lab"))
    found = find_checkpoints(recipe, {"quantize": folder})
    assert [(each.repository, each.branch) for each in found] == [
        ("lab/Poro-34B-GPTQ", names[0]),
        ("lab/Poro-34B-GPTQ", "main"),
    ]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a name, a user and a token, and a folder to be searched."""
    monkeypatch.setattr(scanning.socket, "gethostname", lambda: "puhti-login11.example.org")
    monkeypatch.setattr(scanning.getpass, "getuser", lambda: "maijame")
    monkeypatch.setenv("MY_API_KEY", "notLikeAnyOtherKey99")
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"x": "/home/someone/model"}', "holds the absolute path '/home/someone/model'"),
        ("cache: ~/models/x", "holds the absolute path '~/models/x'"),
        ("C:\\Users\\maija", "holds the absolute path"),
        ("file:///scratch/project_1/x", "holds the absolute path"),
        ("built on puhti-login11", "holds the name of this machine"),
        ("by maijame", "holds the name of this machine's user"),
        ("key: notLikeAnyOtherKey99", "holds a value that came from the environment"),
        ("swordfish12", "holds a value that came from the environment"),
        (f"hf_{'a1B2' * 9}", "holds what looks like a token of the hub"),
        ("-----BEGIN EC PRIVATE KEY-----", "holds what looks like a private key"),
    ],
)
def test_private_things_are_found_by_file_and_line(machine: Path, text: str, said: str) -> None:
    (machine / "notes.yaml").write_text(f"first: line\n{text}\n", encoding="utf-8")
    found = scan(machine, private(secrets=["swordfish12"]))
    assert found
    assert found[0].startswith(f"notes.yaml:2: {said}")
    assert "notLikeAnyOtherKey99" not in str(found)
    assert "swordfish12" not in str(found)


def test_what_is_no_secret_is_not_found(machine: Path) -> None:
    text = "https://example.org/home/page /think </tmp> a/home/b maijamela ../data/x .../model.json and/or\n"
    (machine / "README.md").write_text(text, encoding="utf-8")
    assert scan(machine, private()) == []
    (machine / "tokenizer.json").write_text('{"vocab": {"maijame": 1, "/home/x": 2}}', encoding="utf-8")
    (machine / "LICENSE").write_text("see /usr/share and /home/x\n", encoding="utf-8")
    assert scan(machine, private(), untouched=("LICENSE",)) == []
    (machine / "README.md").write_text("by maijame\n", encoding="utf-8")
    assert scan(machine, private(public=["maijame"]), untouched=("LICENSE",)) == []


def test_the_header_of_weights_is_searched_too(machine: Path) -> None:
    header = b'{"__metadata__": {"path": "/home/someone/x"}}'
    (machine / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (found,) = scan(machine, private())
    assert found.startswith("model.safetensors:1: holds the absolute path")


def of_licence(base: Path | None = None, **release: Any) -> Recipe:
    written = str(base) if base is not None else "org/base"
    return Recipe(name="x", model=Model(base=written), release=Release(**release))


def test_a_licence_is_taken_from_the_base_and_brings_its_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    found = terms(of_licence(tmp_path))
    assert (found.id, found.base, found.files, found.notice) == ("apache-2.0", ("apache-2.0",), ("LICENSE",), None)
    with pytest.raises(UserError, match=r"MIT is not the licence of the base model \(apache-2\.0\); say in"):
        terms(of_licence(tmp_path, license="MIT", license_files=[str(tmp_path / "LICENSE")]))


def test_a_llama_licence_wants_its_text_and_brings_the_notice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the text of Llama 3\.1 Community License \(https://.*the package has none"):
        terms(of_licence(license="llama3.1"))
    text = tmp_path / "LICENSE.txt"
    text.write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n", encoding="utf-8")
    found = terms(of_licence(license="llama3.1", license_files=[str(text)]))
    folder = tmp_path / "out"
    folder.mkdir()
    found.write(folder)
    assert {path.name for path in folder.iterdir()} == {"LICENSE.txt", "NOTICE"} == set(found.files)
    notice = (folder / "NOTICE").read_text(encoding="utf-8")
    assert notice.startswith("Built with Llama\nLlama 3.1 is licensed under the Llama 3.1 Community License")


def test_a_file_that_is_no_licence_is_not_published(tmp_path: Path) -> None:
    (tmp_path / "id_rsa").touch()
    with pytest.raises(UserError, match="id_rsa does not look like the text of a licence"):
        terms(of_licence(license="Apache-2.0", license_files=[str(tmp_path / "id_rsa")]))


def test_the_text_of_a_licence_may_be_in_a_repository_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("posttrain.planning.hub.unreachable", lambda: "no network here")
    where, name = "hf://meta-llama/Llama-3.1-8B", "LICENSE"
    with pytest.raises(UserError) as refused:
        terms(of_licence(license="llama3.1", license_files=[f"{where}/{name}", f"{where}/USE_POLICY.md"]))
    assert [problem.partition(";")[0] for problem in refused.value.problems] == [
        f"release.license_files: {where}/{name} cannot be fetched (no network here)",
        f"release.license_files: {where}/USE_POLICY.md cannot be fetched (no network here)",
    ]
    cached = tmp_path / "models--meta-llama--Llama-3.1-8B"
    blob, snapshot = cached / "blobs" / "0a1b", cached / "snapshots" / ("c" * 40)
    for folder in (blob.parent, snapshot, cached / "refs", tmp_path / "out"):
        folder.mkdir(parents=True)
    (cached / "refs" / "main").write_text("c" * 40, encoding="utf-8")
    blob.write_text("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\n", encoding="utf-8")
    (snapshot / name).symlink_to(blob)
    for written in (f"{where}/{name}", f"{where}@{'c' * 40}/{name}"):
        found = terms(of_licence(license="llama3.1", license_files=[written]))
        assert found.files == (name, "NOTICE")
    found.write(tmp_path / "out")
    assert not (tmp_path / "out" / name).is_symlink()
    assert (tmp_path / "out" / name).read_bytes() == blob.read_bytes()


@pytest.mark.parametrize("written", ["hf://LICENSE", "hf://a/b", "hf://a/b/../../etc/LICENSE", "hf://a/b@x@y/LICENSE"])
def test_what_names_no_file_on_the_hub(written: str) -> None:
    with pytest.raises(UserError, match="names no file on the hub; write hf://OWNER/NAME/FILE"):
        terms(of_licence(license="llama3.1", license_files=[written]))


def test_a_card_of_a_gigabyte_beside_the_base_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "README.md").open("wb") as file:
        file.truncate(1_000_000_000)
    with pytest.raises(UserError, match=r"README\.md: has 1,000 MB, and no such file needs more than 10 MB"):
        terms(of_licence(tmp_path))


def test_the_recipe_of_a_release_has_no_place_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_SECRET", "swordfish12")
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\noutput_dir: /scratch/me/out\nmodel: {base: /scratch/me/base}\n"
        "teacher: {model: big, base_url: 'http://nid00123:8000/v1'}\n"
        "data: {sft: [{source: generic, path: a.jsonl}], num_proc: 8}\n"
        "sft: {trainer: {hub_token: '${oc.env:HUB_SECRET}', run_name: 'a \\${b}'}}\n"
        "launch: {num_processes: 4, slurm: {account: project_1}}\n"
        "release: {signing: {method: key, key: /home/me/key.pem}, public_words: [me]}\n",
        encoding="utf-8",
    )
    loaded = load(path)
    plain = portable_recipe(loaded.recipe, loaded.resolved())
    text = recipe_yaml(plain, loaded.recipe)
    for word in ("scratch", "nid00123", "project_1", "swordfish12", "key.pem", "[me]"):
        assert word not in text
    assert plain["release"]["signing"] == {"method": "key", "key": None, "password_env": None, "later": True}
    assert plain["launch"]["num_processes"] == 4
    assert secrets_of(loaded.recipe, loaded.resolved()) == ["swordfish12"]
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    back = load(again).recipe
    assert back.sft == loaded.recipe.sft, "the secret is read from the environment again, and ${b} is text"
    assert back.model.base == ".../base"


def test_the_default_of_a_variable_is_no_secret_and_its_value_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_URL", raising=False)
    loaded = load("8b")
    assert secrets_of(loaded.recipe, loaded.resolved()) == []
    monkeypatch.setenv("TEACHER_URL", "http://nid00123:8000/v1")
    loaded = load("8b")
    assert secrets_of(loaded.recipe, loaded.resolved()) == ["http://nid00123:8000/v1"]


def test_the_parts_of_a_manifest() -> None:
    manifest: dict[str, Any] = {
        "code": {"commit": "1"},
        "hardware": {"cpu": "x"},
        "times": {"seconds": 1},
        "files": {"a": {"sha256": "1"}, "log": {"sha256": "2", "volatile": True}},
        "stage": "generate",
        "metrics": {"steps": 2, "tokens_per_second": 1.5, "train_seconds": 3, "en/requests": 4, "en/rows": 5},
        "recipe": {"model": {"base": ".../x#0123abcd"}},
        "sources": [],
        "seed": 1,
    }
    stable, volatile = split(manifest)
    assert stable["metrics"] == {"steps": 2, "en/rows": 5}
    assert set(volatile["metrics"]) == {"tokens_per_second", "train_seconds", "en/requests"}
    assert set(split({**manifest, "stage": "data"})[1]["metrics"]) == {"tokens_per_second", "train_seconds"}
    assert set(stable["files"]) == {"a"}
    assert set(volatile["files"]) == {"log"}
    assert stable["recipe"] == {"model": {"base": ".../x"}}
    assert {"code", "hardware", "times"} <= set(volatile)
    assert not {"code", "hardware", "times"} & set(stable)


def bill(**changes: Any) -> str:
    source = {"entry": "data.sft.0", "path": "org/rows", "revision": "abc", "rows": 3, "licenses": ["CC-BY-4.0", "odd"]}
    given: dict[str, Any] = {
        "name": "sft",
        "repository": "lab/Mini-SFT",
        "license_id": "llama3.1",
        "files": {"model.safetensors": "0" * 64},
        "manifests": {"data": {"sources": [source], "versions": {"python": "3.11.7", "torch": "2.13.0+cpu"}}},
        "base": "org/base",
        "architecture": "llama",
    }
    return bill_of_materials(**{**given, **changes})


def test_the_bill_of_materials_names_model_data_and_packages_the_same_every_time() -> None:
    document = json.loads(bill())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert "timestamp" not in document["metadata"]
    model = document["metadata"]["component"]
    assert model["licenses"] == [
        {"license": {"name": "Llama 3.1 Community License", "url": "https://www.llama.com/llama3_1/license/"}}
    ]
    by_type = {component["type"]: component for component in document["components"]}
    assert by_type["data"]["licenses"] == [{"license": {"id": "CC-BY-4.0"}}, {"license": {"name": "odd"}}]
    assert by_type["machine-learning-model"]["name"] == "org/base"
    assert "pkg:pypi/torch@2.13.0%2Bcpu" in document["dependencies"][0]["dependsOn"]
    assert bill() == bill()
    assert json.loads(bill(files={"model.safetensors": "1" * 64}))["serialNumber"] != document["serialNumber"]


def test_the_bill_of_materials_is_valid_by_its_schema(built: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib 8 or newer is not here")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    for text in (bill(), (built / "release" / "sft" / "bom.json").read_text(encoding="utf-8")):
        assert validator.validate_str(text) is None


def test_nothing_heavy_is_imported_to_know_the_stages_of_a_release() -> None:
    program = (
        "import sys; import posttrain.stages.release, posttrain.cli.app, posttrain.recipe.schema_release; "
        "print([n for n in ('torch', 'transformers', 'huggingface_hub', 'model_signing') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_key_of_signing_is_masked_in_a_release() -> None:
    from posttrain.recipe.schema_release import Signing

    assert {field.name for field in dataclasses.fields(Signing)} == {"method", "key", "password_env", "later"}


def test_a_smoke_run_releases_unsigned_and_names_no_folder() -> None:
    from posttrain.recipe.smoke import smoke

    changes = ["release.signing={key: key.pem}", "release.org=lab", "model.base=somewhere/else/model"]
    small = smoke(load("smollm2-135m", changes))
    release = small.loaded.recipe.release
    assert release is not None
    assert (release.signing, release.org, release.max_new_tokens) == (None, "lab", 8)
    assert release.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "release: not signed" in small.notes
    assert smoke(load("tiny")).loaded.recipe.release is not None
