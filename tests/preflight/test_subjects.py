"""Single checks: launch files, tokenizers, licences, packages, endpoints, and what a loss means."""

from __future__ import annotations

import http.server
import importlib.util
import json
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.assets import asset_folder
from posttrain.cli import main
from posttrain.preflight import disk, endpoints, forward, licences, packages
from posttrain.preflight.findings import Finding
from posttrain.recipe import load
from posttrain.recipe.schema import Lora, Recipe, Sft
from posttrain.recipe.schema_generate import Teacher
from posttrain.recipe.schema_quantize import Quantize, Variant
from tests.preflight.conftest import Examine, one, texts, written

Capture = pytest.CaptureFixture[str]

FSDP2 = yaml.safe_load((asset_folder("launch") / "accelerate" / "fsdp2.yaml").read_text(encoding="utf-8"))
ZERO3 = yaml.safe_load((asset_folder("launch") / "accelerate" / "zero3.yaml").read_text(encoding="utf-8"))


def launch_with(here: Path, content: dict[str, Any], **section: Any) -> dict[str, Any]:
    """Return a `launch` section with a file of this content."""
    (here / "launch.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return {"config": "launch.yaml", "num_processes": 2, "cpu": True, **section}


def changed(content: dict[str, Any], **fsdp: Any) -> dict[str, Any]:
    """Return a launch file with other values under `fsdp_config`; None takes a key out."""
    merged = {**content["fsdp_config"], **fsdp}
    return {**content, "fsdp_config": {key: value for key, value in merged.items() if value is not None}}


@pytest.fixture
def with_deepspeed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Have DeepSpeed be installed, or not, whatever is."""
    find_spec = importlib.util.find_spec

    def installed(there: bool) -> None:
        def find(name: str, package: str | None = None) -> Any:
            return (find_spec("json") if there else None) if name == "deepspeed" else find_spec(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find)

    return installed


def test_a_missing_deepspeed_is_said_once_before_anything_is_built(
    here: Path, checkpoint: Path, examined: Examine, capsys: Capture, with_deepspeed: Callable[[bool], None]
) -> None:
    sizes = {"global_batch_size": 4}
    sections = {"model": {"dtype": "bfloat16"}, "launch": launch_with(here, ZERO3), "sft": sizes, "dpo": sizes}
    expected = (
        "launch.config: launch.yaml divides the model by DeepSpeed, which is not installed; "
        "pip install -c constraints.txt -e '.[deepspeed]', or use launch/accelerate/fsdp2.yaml"
    )
    with_deepspeed(False)
    assert one(examined(**sections), "error", "launch.config: launch.yaml divides") == expected
    name = written(here, checkpoint, **sections)
    for command in ("run", "sft", "ref-logps", "dpo"):
        assert main([command, name]) == 2
        assert capsys.readouterr().err == f"posttrain: error: {expected}\n"
    assert not (here / "out").exists()
    with_deepspeed(True)
    assert not any("DeepSpeed" in text for text in texts(examined(**sections), "error"))


@pytest.mark.parametrize("content", [FSDP2, ZERO3], ids=["fsdp2", "zero3"])
def test_own_launch_files_are_in_order(here: Path, examined: Examine, content: dict[str, Any]) -> None:
    model, sizes = {"dtype": "bfloat16"}, {"global_batch_size": 4}
    found = examined(model=model, launch=launch_with(here, content), sft=sizes, dpo=sizes)
    about = [
        finding for finding in found if finding.text.startswith("launch.config") and "deepspeed" not in finding.text
    ]
    assert [finding.level for finding in about] == ["note"], about
    assert "states num_processes 8; launch.num_processes=2 of the recipe holds" in about[0].text


@pytest.mark.parametrize(
    ("content", "level", "text"),
    [
        ({**FSDP2, "mixed_precision": "fp16"}, "error", "mixed_precision fp16, and model.dtype is bfloat16"),
        (changed(FSDP2, fsdp_version=1), "error", "fsdp_version 1; posttrain saves and resumes under version 2"),
        (
            changed(FSDP2, fsdp_auto_wrap_policy=None),
            "error",
            "without fsdp_auto_wrap_policy the whole model is one unit",
        ),
        (
            changed(FSDP2, fsdp_transformer_layer_cls_to_wrap="Qwen2DecoderLayer"),
            "error",
            "names Qwen2DecoderLayer, and a model of type llama has no such class; give LlamaDecoderLayer",
        ),
        (changed(FSDP2, fsdp_activation_checkpointing=True), "error", "fsdp_activation_checkpointing is on"),
        (changed(FSDP2, fsdp_reshard_after_forward="FULL_SHARD"), "error", "under FSDP2 it is true or false"),
        (changed(FSDP2, fsdp_sharding_strategy="FULL_SHARD"), "warning", "fsdp_sharding_strategy has no meaning"),
        (changed(FSDP2, fsdp_state_dict_type="FULL_STATE_DICT"), "warning", "every checkpoint on the way is gathered"),
        (
            {**ZERO3, "deepspeed_config": {"zero_stage": 3, "zero3_init_flag": True}},
            "error",
            "without zero3_save_16bit_model: true",
        ),
        (
            {**ZERO3, "deepspeed_config": {**ZERO3["deepspeed_config"], "gradient_accumulation_steps": 4}},
            "error",
            "gradient_accumulation_steps is 4, which follows from the recipe",
        ),
        ({"distributed_type": "NO", "num_processes": 2}, "error", "distributed_type NO, which starts one process"),
        ({"distributed_type": "MULTI_CPU", "num_processes": 2}, "error", "leaves starting the processes to mpirun"),
    ],
)
def test_launch_file_against_recipe(
    here: Path, examined: Examine, content: dict[str, Any], level: str, text: str
) -> None:
    sizes = {"global_batch_size": 4}
    found = examined(model={"dtype": "bfloat16"}, launch=launch_with(here, content), sft=sizes, dpo=sizes)
    assert sum(text in each for each in texts(found, level)) == 1, found


def test_a_layer_class_that_exists(here: Path, examined: Examine) -> None:
    content = changed(FSDP2, fsdp_transformer_layer_cls_to_wrap="LlamaDecoderLayer")
    found = examined(model={"dtype": "bfloat16"}, launch=launch_with(here, content))
    assert not any("has no such class" in finding.text for finding in found)


def test_quantised_weights_are_not_divided(here: Path, examined: Examine) -> None:
    sft = {"quantization": "nf4", "lora": {}, "global_batch_size": 4}
    found = examined(model={"dtype": "bfloat16"}, launch=launch_with(here, FSDP2), sft=sft)
    assert any("4-bit weights whole on each device, which FSDP2 would divide" in text for text in texts(found, "error"))


def test_slurm_against_processes(examined: Examine) -> None:
    found = examined(launch={"num_processes": 2, "slurm": {"nodes": 2, "gpus_per_node": 8}})
    assert "set launch.num_processes=16" in one(found, "error", "launch.slurm: 2 x 8 devices")


def tokenizer_changed(checkpoint: Path, folder: Path, change: Any) -> Path:
    """Copy the checkpoint's tokenizer with something changed in its `tokenizer.json`."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "config.json":
            shutil.copy(path, folder)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_another_models_tokenizer(tmp_path: Path, checkpoint: Path, examined: Examine) -> None:
    def swap(content: dict[str, Any]) -> None:
        vocabulary = content["model"]["vocab"]
        first, second = (token for token, number in vocabulary.items() if number in (50, 51))
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    other = tokenizer_changed(checkpoint, tmp_path / "other", swap)
    found = examined(model={"tokenizer": str(other)})
    assert "2 have another id and 0 are not there" in one(found, "error", "model.tokenizer: ")
    same = tokenizer_changed(checkpoint, tmp_path / "same", lambda content: None)
    assert not any(
        text.startswith("model.tokenizer") for text in texts(examined(model={"tokenizer": str(same)}), "error")
    )


def test_template_that_trains_the_user(here: Path, examined: Examine) -> None:
    plain = (
        "{{ bos_token }}{% generation %}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>"
        "{{ m.content }}<|eot_id|>{% endfor %}{% endgeneration %}"
    )
    (here / "all.jinja").write_text(plain, encoding="utf-8")
    found = examined(model={"chat_template": "./all.jinja"})
    assert any("which is not the assistant's text alone" in text for text in texts(found, "error")), found


def test_template_without_a_bos(here: Path, examined: Examine) -> None:
    turns = (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}{% else %}{{ m.content }}<|eot_id|>{% endif %}"
        "{% endfor %}"
    )
    (here / "none.jinja").write_text(turns, encoding="utf-8")
    found = examined(model={"chat_template": "./none.jinja"})
    assert "has probably never seen one without it" in one(found, "warning", "BOS: ")
    (here / "two.jinja").write_text("{{ bos_token }}{{ bos_token }}" + turns, encoding="utf-8")
    found = examined(model={"chat_template": "./two.jinja"})
    assert any("2 times in one conversation" in text for text in texts(found, "error"))


def test_embedding_too_small(tmp_path: Path, checkpoint: Path, examined: Examine) -> None:
    folder = tmp_path / "small"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}), encoding="utf-8")
    found = examined(base=folder)
    assert any("has 300 rows" in text for text in texts(found, "error"))


def entry(source: str = "generic", **more: Any) -> dict[str, Any]:
    """Return an entry of `data.sft`."""
    return {"source": source, "path": "builtin:samples/messages.jsonl", **more}


def test_licences_that_conflict(examined: Examine, tmp_path: Path, checkpoint: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoint, base)
    (base / "README.md").write_text("---\nlicense: llama3.1\n---\n# A model\n", encoding="utf-8")
    entries = [
        entry(name="free", license="Apache-2.0"),
        entry(name="research", license="CC-BY-NC-4.0"),
        entry(name="alike", license="CC-BY-SA-4.0"),
        entry(name="silent"),
        entry("tulu3", name="tulu", drop_subsets=["flan_v2", "sciriff"]),
    ]
    found = examined(base=base, data={"sft": entries})
    assert "forbids commercial use, though" in one(found, "warning", "data.sft.1: research:")
    assert "is published under the same licence" in one(found, "warning", "data.sft.2: alike:")
    assert "no licence is stated" in one(found, "warning", "data.sft.3: silent:")
    kept = [text for text in texts(found, "warning") if text.startswith("data.sft.4: tulu, subset")]
    assert [text.split(": ")[1] for text in kept] == ["tulu, subset no_robots", "tulu, subset numinamath"]
    assert "Llama 3.1" in one(found, "note", "licences that allow commercial use on conditions")


def test_free_licences_are_no_finding(examined: Examine) -> None:
    assert not [finding for finding in examined() if "commercial" in finding.text]


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch, examined: Examine) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    found = examined(
        sft={"quantization": "nf4", "lora": {}, "optim": "paged_adamw_8bit"},
        data={"filters": {"language": {}}},
        model={"attn_implementation": "flash_attention_2"},
    )
    missing = [text for text in texts(found, "error") if "which is not installed" in text]
    assert sorted(text.split(" package ")[1].split(",")[0] for text in missing) == [
        "bitsandbytes",
        "flash_attn",
        "heliport",
    ]
    assert any(text.endswith("pip install -c constraints.txt -e '.[language]'") for text in missing)


class Server(http.server.BaseHTTPRequestHandler):
    """Lists one model to who has the key."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") in ("Bearer right", "Basic dTpw")
        answer = {
            "/v1/models": (200, {"data": [{"id": "served"}]}) if allowed else (401, {}),
            "/open/models": (200, {"data": [{"id": "served"}]}),
            "/odd/models": (200, ["served"]),
            "/busy/models": (503, {}),
        }.get(self.path, (404, {}))
        body = json.dumps(answer[1]).encode()
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "model", "key", "level", "text"),
    [
        ("127.0.0.1:PORT/open", "served", None, "note", "answers and serves served"),
        ("127.0.0.1:PORT/open", "other", None, "error", "does not serve 'other' but served"),
        ("127.0.0.1:PORT/v1", "served", "right", "note", "answers and serves served"),
        ("u:p@127.0.0.1:PORT/v1", "served", None, "note", "http://127.0.0.1:"),
        ("127.0.0.1:PORT/v1", "served", "wrong", "error", "answers 401"),
        ("127.0.0.1:PORT/v1", "served", "", "error", "the environment variable THE_KEY is not set"),
        ("127.0.0.1:PORT/absent", "served", None, "warning", "has no list of models"),
        ("127.0.0.1:PORT/busy", "served", None, "error", "answers 503: the server is not ready"),
        ("127.0.0.1:PORT/odd", "served", None, "warning", "not with a list of models"),
        ("127.0.0.1:9", "served", None, "error", "does not answer"),
    ],
)
def test_endpoints(
    port: int, monkeypatch: pytest.MonkeyPatch, path: str, model: str, key: str | None, level: str, text: str
) -> None:
    if key is not None:
        monkeypatch.setenv("THE_KEY", key)
    url = f"http://{path.replace('PORT', str(port))}"
    teacher = Teacher(model=model, base_url=url, api_key_env=None if key is None else "THE_KEY")
    (found,) = endpoints.ask("teacher", teacher)
    assert found.level == level
    assert text in found.text
    assert not any(secret in found.text for secret in ("right", "wrong", "u:p"))


def test_what_a_loss_means() -> None:
    def level(loss: float, norm: float = 1.0) -> list[str]:
        return [finding.level for finding in forward.judge("sft", loss, norm, 1000)]

    assert level(2.0) == []
    assert level(math.log(1000) + 0.1) == ["warning"]
    assert level(math.nan) == level(2.0, math.inf) == level(2.0, 0.0) == ["error"]


def test_bytes_on_disk_are_those_of_a_checkpoint() -> None:
    from posttrain.planning.model import config_of, shape

    recipe: Recipe = load("70b").recipe
    sizes = shape(config_of(recipe.model))
    assert recipe.sft is not None
    # 70.55 billion parameters in float32, with two moments: 12 bytes each; the final model in bfloat16.
    assert disk.checkpoint_bytes(recipe, sizes, recipe.sft) == pytest.approx(12 * 70.55e9, rel=1e-3)
    assert disk.final_bytes(recipe, sizes, recipe.sft) == pytest.approx(2 * 70.55e9, rel=1e-3)
    most, where = disk.needed(recipe, sizes, {"sft": recipe.sft})
    assert (most, where) == (3 * disk.checkpoint_bytes(recipe, sizes, recipe.sft), "sft")
    final = disk.final_bytes(recipe, sizes, recipe.sft)
    assert disk.needed(recipe, sizes, {}, ["release"]) == (2 * final, "release")
    four = Variant(bits=4, group_size=128)
    quantised = replace(recipe, quantize=Quantize(variants=[four]))
    # 4 bits and a 128th of 20 for each weight of the layers; two matrices of 128,256 x 8,192 stay in bfloat16.
    size = disk.variant_bytes(quantised, sizes, four)
    assert size == pytest.approx((70.55e9 - 2.101e9) * (4 + 20 / 128) / 8 + 2 * 2.101e9, rel=1e-3)
    assert disk.needed(quantised, sizes, {}, ["quantize"]) == (size, "quantize")
    assert disk.needed(quantised, sizes, {}, ["quantize", "release"]) == (2 * size + 2 * final, "release")
    adapter = Sft(lora=Lora(merge=False), optim="paged_adamw_8bit")
    assert disk.checkpoint_bytes(recipe, sizes, adapter) == 6 * sizes.lora_parameters(Lora())
    assert disk.final_bytes(recipe, sizes, adapter) == 4 * sizes.lora_parameters(Lora())


def test_every_builtin_recipe_has_entries_whose_licences_are_known() -> None:
    for name in ("tiny", "smollm2-135m"):
        loaded = load(name)
        from posttrain.preflight.subject import Subject

        found: list[Finding] = list(licences.check(Subject(loaded, [], 1)))
        assert [finding for finding in found if finding.level == "error"] == []
        assert not [finding for finding in found if "no licence is stated" in finding.text]
