"""The checks together: errors first, all at once, and none where nothing is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from posttrain.planning.hardware import named
from posttrain.preflight.findings import LEVELS, error, note, ordered, warning
from tests.helpers import snapshot
from tests.preflight.conftest import Examine, one, texts


def test_errors_come_first_and_none_twice() -> None:
    found = [note("n"), warning("w"), error("a"), note("n"), error("b")]
    assert ordered(found) == [error("a"), error("b"), warning("w"), note("n")]


def test_a_good_recipe_has_no_error_and_nothing_is_written(here: Path, examined: Examine) -> None:
    found = examined()
    assert texts(found, "error") == []
    assert [path.name for path in here.iterdir()] == ["checked.yaml"]
    assert one(found, "note", "stages: to be built: data, tokenize-sft")
    assert one(found, "note", "BOS: <|begin_of_text|> opens each conversation, once")
    assert one(found, "note", "EOS: generation will stop at <|eot_id|>, <|end_of_text|>")
    assert "'42<|eot_id|>42<|eot_id|>'" in one(found, "note", "loss mask: the assistant's text")
    assert one(found, "note", "embedding: 400 rows for")
    assert one(found, "note", "disk: about")


def test_everything_is_found_at_once(examined: Examine) -> None:
    found = examined(
        sft={"global_batch_size": 3, "max_length": 4096},
        data={"sft": [{"source": "generic", "path": "absent.jsonl"}]},
        dpo={"optim": "adamw_torch", "max_length": 300},
        launch={"num_processes": 2, "config": "absent.yaml"},
        teacher={"model": "m", "base_url": "http://127.0.0.1:9/v1"},
        generate=[{"rollout": "magpie", "name": "written", "rows": 3}],
    )
    assert [finding.level for finding in found] == sorted((f.level for f in found), key=LEVELS.index)
    for start in (
        "data.sft.0.path: there is no file or folder 'absent.jsonl'",
        "sft.global_batch_size: 3 is not a multiple of 4",
        "sft.max_length: 4096 tokens, and the model knows 256 positions",
        "dpo.max_length: 300 tokens",
        "launch.config: absent.yaml cannot be read",
        "teacher.base_url: http://127.0.0.1:9/v1 does not answer",
    ):
        assert one(found, "error", start)


def test_complete_and_stale_stages(built: Path, examined: Examine) -> None:
    before = snapshot(built)
    assert "complete: data, tokenize-sft, tokenize-preference" in one(examined(), "note", "stages: ")
    stale = examined(data={"validation": {"fraction": 0.5}})
    assert "was made from something else" in one(stale, "error", "data: ")
    assert snapshot(built) == before


def test_rows_are_counted_from_tokens_and_before_that_from_a_sample(built: Path, examined: Examine) -> None:
    whole = examined()
    rows = [text for text in texts(whole, "note") if "trained tokens" in text]
    assert len(rows) == 2
    for stage in ("tokens-sft", "tokens-preference"):
        shutil.rmtree(built / stage)
    assert [text for text in texts(examined(), "note") if "trained tokens" in text] == rows, (
        "all rows are in the sample"
    )


def test_rows_that_do_not_fit(built: Path, examined: Examine) -> None:
    for stage in ("tokens-sft", "tokens-preference"):
        shutil.rmtree(built / stage)
    found = examined(sft={"max_length": 220}, dpo={"max_length": 256})
    assert "are longer than sft.max_length 220 and are cut" in "".join(texts(found, "warning"))
    nothing = examined(sft={"max_length": 2}, dpo={"max_length": 2})
    assert "none can be trained on: no trained token within max_length" in one(nothing, "error", "data.sft: ")
    assert "none can be trained on: longer than max_length" in one(nothing, "error", "data.preference: ")


@pytest.mark.parametrize(("dtype", "errors"), [("float16", 1), ("bfloat16", 0)])
def test_number_types_of_a_processor(examined: Examine, dtype: str, errors: int) -> None:
    found = examined(model={"dtype": dtype})
    assert sum("does not train on a processor" in text for text in texts(found, "error")) == errors


def test_memory_of_named_devices(examined: Examine) -> None:
    found = examined(launch={"cpu": False}, hardware=named("h100"))
    assert "GB on each of 1 x H100" in one(found, "note", "sft: about 0.")
    big = {"vocab_size": 128000, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
    heads = {"num_attention_heads": 64, "num_key_value_heads": 8, "max_position_embeddings": 8192}
    model = {"base": None, "new": {**big, **heads}, "dtype": "bfloat16"}
    cpt = {"text": [{"path": "builtin:text/en.txt", "license": "Apache-2.0"}]}
    found = examined(model=model, cpt=cpt, launch={"cpu": False, "num_processes": 8}, hardware=named("h100"))
    assert "posttrain plan says what would make it fit" in one(found, "error", "sft: about ")
    assert "holds the whole model of 70B parameters" in one(found, "warning", "launch.config: none is given")


def test_disk(examined: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    import posttrain.preflight.disk as disk

    usage = shutil.disk_usage(".")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    found = examined()
    assert "make room, choose another output_dir=..., or lower dpo.save_total_limit" in one(found, "error", "disk: ")


def test_forward(built: Path, examined: Examine) -> None:
    import math

    found = examined(forward=True)
    assert texts(found, "error") == []
    text = one(found, "note", "--forward: sft: 2 rows of at most")
    loss = float(text.split("loss ")[1].split(",")[0])
    assert loss == pytest.approx(math.log(400), abs=0.3), "weights are random, so it guesses"
    lora = examined(forward=True, sft={"lora": {"r": 2}, "gradient_checkpointing": True})
    again = one(lora, "note", "--forward: sft: 2 rows of at most")
    assert float(again.split("loss ")[1].split(",")[0]) == pytest.approx(loss, abs=1e-3), "an adapter starts at nothing"


def test_forward_needs_data(examined: Examine) -> None:
    assert "build it with posttrain data" in one(examined(forward=True), "warning", "--forward: the data is not there")
