"""Stored reference log-probabilities: TRL's own to the bit, the same however they were computed, and never stale."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from posttrain.errors import Interrupted, UserError
from posttrain.recipe.schema import Dpo, Launch, Model, Recipe
from posttrain.train import ref_logps, trl
from posttrain.train.dataset import TokenSet, load_tokens
from posttrain.train.model import load_model
from posttrain.train.ref_store import (
    CHECKPOINT_FILES,
    CHOSEN,
    METADATA,
    REJECTED,
    digest_of,
    join_shards,
    list_shards,
    with_reference,
    write_shard,
)
from tests.helpers import MODEL, run_python
from tests.train.conftest import pair_rows
from tests.train.test_stages import DPO, LORA, SFT, recipe_for, run_stage, weights, write_rows

FILES = ("train.arrow", "validation.arrow", METADATA)
LAUNCH = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
SMALL = 3  # pairs a shard: 12 and 3 pairs make five

# What a process of a launch does; the arguments are the checkpoint, the folder of the data's tokens and the output.
PROCESS = """
import io, os, signal, sys
from functools import partial
from pathlib import Path
from rich.console import Console
from posttrain.stages.context import Context
from posttrain.train import ref_logps, ref_store
from tests.train.test_stages import DPO, recipe_for

checkpoint, tokens, folder = map(Path, sys.argv[1:4])
kill_after = int(sys.argv[4]) if len(sys.argv) > 4 else None
ref_logps.list_shards = partial(ref_store.list_shards, size=3)
written = 0

def write(shard, values):
    global written
    if written == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
    ref_store.write_shard(shard, values)
    written += 1

ref_logps.write_shard = write
rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
folder.mkdir(parents=True, exist_ok=True)
inputs = {"sft": checkpoint, "tokenize-preference": tokens}
ref_logps.compute_ref_logps(Context(
    stage="ref-logps", recipe=recipe_for(checkpoint, dpo=DPO), resolved={}, folder=folder, inputs=inputs,
    resume=False, rank=rank, world_size=size, console=Console(file=io.StringIO()),
))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "process.py"
    path.write_text(PROCESS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokens(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens of 12 pairs to train on and 3 held out."""
    data = write_rows(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("tokens") / "preference"
    run_stage("tokenize-preference", recipe_for(checkpoint, dpo=DPO), folder, {"data": data})
    return folder


@pytest.fixture(scope="module")
def computed(checkpoint: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process computes of them, uninterrupted and in shards as they come."""
    folder = tmp_path_factory.mktemp("computed") / "ref_logps"
    compute(checkpoint, tokens, folder)
    return folder


def compute(checkpoint: Path, tokens: Path, folder: Path, *, resume: bool = False, **changes: Any) -> Any:
    recipe = recipe_for(checkpoint, dpo=replace(DPO, **changes))
    return run_stage("ref-logps", recipe, folder, {"sft": checkpoint, "tokenize-preference": tokens}, resume)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


class Tokenised(DPOTrainer):
    """TRL's trainer on rows that are token ids already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def by_trl(model: Any, rows: Dataset, tokenizer: Any, folder: Path, size: int, **settings: Any) -> np.ndarray:
    """Have TRL's own trainer precompute the log-probabilities."""
    config = DPOConfig(
        output_dir=str(folder),
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=size,
        use_cpu=True,
        report_to=[],
        max_length=128,
        **({"bf16": False} | settings),
    )
    trainer = Tokenised(
        model=model, args=config, train_dataset=Dataset.from_list(list(rows)), processing_class=tokenizer
    )
    return np.array([trainer.train_dataset[CHOSEN], trainer.train_dataset[REJECTED]], dtype=np.float32).T


def stored(folder: Path, split: str = "train") -> np.ndarray:
    columns = Dataset.from_file(str(folder / f"{split}.arrow"))
    return np.array([columns[CHOSEN], columns[REJECTED]], dtype=np.float32).T


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_values_are_trls_own(
    checkpoint: Path, tokens: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, alpha: float | None
) -> None:
    settings = {} if alpha is None else {"ld_alpha": alpha}
    compute(checkpoint, tokens, tmp_path / "own", trainer=settings)
    rows, values = load_tokens(tokens).train, stored(tmp_path / "own")
    model = load_model(checkpoint, MODEL, dtype="float32")
    one = by_trl(copy.deepcopy(model), rows, tokenizer, tmp_path / "one", 1, **settings)
    assert np.array_equal(values, one)
    many = by_trl(copy.deepcopy(model), rows, tokenizer, tmp_path / "many", 5, **settings)
    np.testing.assert_allclose(values, many, rtol=1e-6)
    if alpha is not None:
        plain = by_trl(copy.deepcopy(model), rows, tokenizer, tmp_path / "plain", 1)
        assert not np.allclose(values, plain, rtol=1e-3)


def test_values_in_bfloat16_are_trls_own_to_the_bit(
    checkpoint: Path, tokens: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model = Model(base=str(checkpoint), dtype="bfloat16", chat_template="llama-3.1")
    recipe = Recipe(name="test", model=model, dpo=replace(DPO, shared_prefix="off"), launch=Launch(cpu=True))
    run_stage("ref-logps", recipe, tmp_path / "own", {"sft": checkpoint, "tokenize-preference": tokens})
    network = load_model(checkpoint, MODEL, dtype="float32")
    theirs = by_trl(network, load_tokens(tokens).train, tokenizer, tmp_path / "trl", 1, bf16=True)
    assert np.array_equal(stored(tmp_path / "own"), theirs)


def test_any_number_of_processes_and_any_shards_give_the_same_bytes(
    checkpoint: Path, tokens: Path, computed: Path, script: Path, tmp_path: Path
) -> None:
    """One process in shards of 128 pairs, and two in shards of three."""
    folder = tmp_path / "two"
    command = [*LAUNCH, str(script), str(checkpoint), str(tokens), str(folder)]
    done = run_python(command, at=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / ".work").glob("*.arrow"))) == 5
    assert content(folder) == content(computed)


def test_killed_and_started_again_it_does_what_is_left(
    checkpoint: Path, tokens: Path, computed: Path, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    done = run_python([str(script), str(checkpoint), str(tokens), str(folder), "3"], at=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = {path: path.stat().st_mtime_ns for path in (folder / ".work").glob("*.arrow")}
    assert len(finished) == 3
    assert not (folder / METADATA).exists()

    scored: list[Any] = []
    score = trl.ReferenceScorer.score

    def counted(self: Any, pairs: Any) -> Any:
        scored.append(pairs)
        return score(self, pairs)

    monkeypatch.setattr(trl.ReferenceScorer, "score", counted)
    monkeypatch.setattr(ref_logps, "list_shards", partial(list_shards, size=SMALL))
    compute(checkpoint, tokens, folder, resume=True)
    assert len(scored) == 15 - 3 * SMALL
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    assert stored(folder).tobytes() == stored(computed).tobytes()
    assert (folder / METADATA).read_bytes() == (computed / METADATA).read_bytes()


def test_a_signal_keeps_the_finished_shards(
    checkpoint: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = trl.ReferenceScorer.score
    scored = []

    def with_signal(self: Any, pairs: Any) -> Any:
        scored.append(pairs)
        if len(scored) == 2 * SMALL + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return score(self, pairs)

    monkeypatch.setattr(ref_logps, "list_shards", partial(list_shards, size=SMALL))
    monkeypatch.setattr(trl.ReferenceScorer, "score", with_signal)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped after 6 of 15 pairs"):
        compute(checkpoint, tokens, tmp_path / "cut")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert len(list((tmp_path / "cut/.work").glob("*.arrow"))) == 2


@pytest.mark.slow
def test_model_in_shards_over_two_processes(
    checkpoint: Path, tokens: Path, computed: Path, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 needs all processes at each forward pass, also where one has no shard of pairs left."""
    for name, value in {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
        "ACCELERATE_USE_CPU": "true",
    }.items():
        monkeypatch.setenv(name, value)
    marker = tmp_path / "sharded.py"
    marker.write_text(
        script.read_text(encoding="utf-8").replace(
            "rank, size =",
            "from posttrain.train import trl\n"
            "score = trl.ReferenceScorer.score\n"
            "def checked(self, pairs):\n"
            "    kinds = {type(weight).__name__ for weight in self._model.parameters()}\n"
            "    assert self.sharded and 'DTensor' in kinds, kinds\n"
            "    return score(self, pairs)\n"
            "trl.ReferenceScorer.score = checked\n"
            "rank, size =",
        ),
        encoding="utf-8",
    )
    command = [*LAUNCH, str(marker), str(checkpoint), str(tokens), str(tmp_path / "two")]
    done = run_python(command, at=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(stored(tmp_path / "two"), stored(computed), rtol=1e-6)
    np.testing.assert_allclose(stored(tmp_path / "two", "validation"), stored(computed, "validation"), rtol=1e-6)


def dpo(checkpoint: Path, tokens: Path, values: Path | None, folder: Path, **changes: Any) -> Any:
    inputs = {"sft": checkpoint, "tokenize-preference": tokens}
    if values is not None:
        inputs["ref-logps"] = values
    return run_stage("dpo", recipe_for(checkpoint, dpo=replace(DPO, **changes)), folder, inputs)


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((folder / "history.json").read_text()) if "loss" in entry]


def test_dpo_loads_one_model_and_trains_as_with_two(
    checkpoint: Path, tokens: Path, computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedModel

    loaded = []
    load: Any = PreTrainedModel.from_pretrained

    def noted(cls: Any, path: str, **kwargs: Any) -> Any:
        loaded.append(path)
        return load.__func__(cls, path, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(noted))
    context = dpo(checkpoint, tokens, computed, tmp_path / "one", learning_rate=1e-3)
    assert loaded.count(str(checkpoint)) == 1  # besides what was saved in the end, which is loaded to be compared
    assert context.metrics["before/loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert losses(tmp_path / "one")[0] == pytest.approx(np.log(2), abs=1e-5)
    dpo(checkpoint, tokens, None, tmp_path / "two", learning_rate=1e-3, reference="model")
    assert loaded.count(str(checkpoint)) == 3
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), rel=1e-4)
    one, two, before = (weights(folder) for folder in (tmp_path / "one", tmp_path / "two", checkpoint))
    moved = max((two[name] - before[name]).abs().max() for name in two)
    apart = max((two[name] - one[name]).abs().max() for name in two)
    assert apart < 0.02 * moved


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_an_adapter_trains_with_stored_values_as_with_itself_off(
    checkpoint: Path, tokens: Path, tmp_path: Path, quantization: Any
) -> None:
    settings: dict[str, Any] = {"lora": LORA, "quantization": quantization, "learning_rate": 1e-3}
    compute(checkpoint, tokens, tmp_path / "ref_logps", **settings)
    dpo(checkpoint, tokens, tmp_path / "ref_logps", tmp_path / "stored", reference="precomputed", **settings)
    dpo(checkpoint, tokens, None, tmp_path / "off", **settings)
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "off"), rel=1e-4)


def test_an_adapter_that_is_trained_on_needs_no_frozen_copy(
    checkpoint: Path, tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = replace(LORA, merge=False)
    recipe = recipe_for(checkpoint, sft=replace(SFT, lora=adapter), dpo=replace(DPO, lora=adapter))
    data = write_rows(tmp_path / "data")
    run_stage("sft", recipe, tmp_path / "sft", {"data": data})
    inputs = {"sft": tmp_path / "sft", "tokenize-preference": tokens}
    run_stage("dpo", recipe, tmp_path / "copy", inputs)

    kept = []
    log_probabilities = trl.PreferenceTrainer._log_probabilities

    def spied(self: Any, model: Any, pairs: Any) -> Any:
        kept.append(set(self.model.peft_config))
        return log_probabilities(self, model, pairs)

    monkeypatch.setattr(trl.PreferenceTrainer, "_log_probabilities", spied)
    storing = replace(recipe, dpo=replace(DPO, lora=adapter, reference="precomputed"))
    context = run_stage("dpo", storing, tmp_path / "stored", inputs)
    assert kept
    assert all(names == {"default"} for names in kept)
    assert context.metrics["before/rewards/margins"] == pytest.approx(0.0, abs=1e-5)
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "copy"), rel=1e-3)


def annotated(rows: Dataset, values: np.ndarray) -> Dataset:
    columns = rows.to_dict() | {CHOSEN: values[:, 0].tolist(), REJECTED: values[:, 1].tolist()}
    return Dataset.from_dict(columns)


def scored(model: Any, rows: Dataset, tokenizer: Any, **trainer: Any) -> np.ndarray:
    settings = Dpo(trainer=trainer)
    recipe = Recipe(name="test", model=MODEL, dpo=settings, launch=Launch(cpu=True))
    scorer = trl.ReferenceScorer(copy.deepcopy(model), settings, recipe, pad=tokenizer.pad_token_id, packed=False)
    values: np.ndarray = scorer.score(list(rows))
    return values


@pytest.mark.parametrize(
    ("loss", "trainer"),
    [
        (["sigmoid_norm"], {}),
        (["ipo"], {}),
        (["sigmoid", "sft"], {}),
        (["apo_zero"], {}),
        (["sigmoid"], {"ld_alpha": 0.4}),
        (["sigmoid"], {"f_divergence_type": "js_divergence"}),
        (["sigmoid"], {"use_weighting": True}),
    ],
    ids=str,
)
def test_every_loss_is_the_same_with_stored_values(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    preference: Callable[..., Any],
    loss: list[str],
    trainer: dict[str, Any],
) -> None:
    """The policy is another model than the reference, so that a wrong term would show."""
    torch.manual_seed(2)
    policy = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    rows = pair_rows(6)
    values = scored(model, rows, tokenizer, **trainer)
    found = []
    for train, held_out, reference in (
        (rows, rows, copy.deepcopy(model)),
        (annotated(rows, values), annotated(rows, values), None),
    ):
        made = preference(
            copy.deepcopy(policy),
            reference,
            train,
            held_out,
            loss_type=loss,
            trainer=trainer,
            global_batch_size=6,
            per_device_train_batch_size=6,
            max_steps=1,
        )
        monitored = _without_start_check(made)
        monitored.train()
        log = next(entry for entry in monitored.state.log_history if "loss" in entry)
        found.append((log["loss"], log["rewards/margins"], monitored.evaluate()["eval_rewards/margins"]))
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-6)


def _without_start_check(trainer: Any) -> Any:
    trainer._start_tolerance = lambda inputs: float("inf")
    return trainer


def test_values_of_another_model_do_not_start_at_ln_2(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, preference: Callable[..., Any]
) -> None:
    rows = pair_rows(4)
    values = scored(model, rows, tokenizer)
    right = preference(copy.deepcopy(model), None, annotated(rows, values), global_batch_size=4, max_steps=1)
    right.train()
    assert right.state.log_history[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    for wrong in (values + np.array([0.0, 1.0], dtype=np.float32), np.full_like(values, np.nan)):
        trainer = preference(copy.deepcopy(model), None, annotated(rows, wrong), global_batch_size=4, max_steps=1)
        with pytest.raises(RuntimeError, match="another model's"):
            trainer.train()


def test_stale_values_are_refused(checkpoint: Path, tokens: Path, computed: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    file = other / "model.safetensors"
    state = load_file(file)
    state["model.norm.weight"][0] += 0.5
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"computed with another checkpoint.*--force ref-logps"):
        dpo(other, tokens, computed, tmp_path / "one")
    with pytest.raises(UserError, match=r"ld_alpha was None, and is 0\.5"):
        dpo(checkpoint, tokens, computed, tmp_path / "two", trainer={"ld_alpha": 0.5})
    fewer = tmp_path / "tokens"
    shutil.copytree(tokens, fewer)
    shutil.copyfile(tokens / "validation.arrow", fewer / "train.arrow")
    with pytest.raises(UserError, match="the preference pairs, or their tokens, have changed"):
        dpo(checkpoint, fewer, computed, tmp_path / "three")


def test_a_digest_is_of_contents_whether_or_not_a_manifest_knows_them(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(checkpoint, folder)
    plain = digest_of([folder], CHECKPOINT_FILES)
    assert plain == digest_of([checkpoint], CHECKPOINT_FILES)
    files = {}
    for path in folder.iterdir():
        files[path.name] = {"sha256": f"said of {path.name}", "bytes": path.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    assert digest_of([folder], CHECKPOINT_FILES) != plain, "the manifest was not asked"
    stamp = (folder / "manifest.json").stat().st_mtime_ns + 1
    for path in folder.glob("*.*"):
        if path.name != "manifest.json":
            os.utime(path, ns=(stamp, stamp))
    assert digest_of([folder], CHECKPOINT_FILES) == plain, "files that were written after the manifest"
    assert digest_of(["org/model"], CHECKPOINT_FILES, "v1") != digest_of(["org/model"], CHECKPOINT_FILES, "v2")


def test_no_held_out_pairs(tmp_path: Path) -> None:
    rows = pair_rows(5)
    shards = list_shards({"train": 5, "validation": 0}, tmp_path, size=2)
    assert [(shard.start, shard.stop) for shard in shards] == [(0, 2), (2, 4), (4, 5)]
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    for shard in reversed(shards):
        write_shard(shard, values[shard.start : shard.stop])
    join_shards(shards, tmp_path, {"checkpoint": "x"})
    counts: Any = None
    joined = with_reference(TokenSet(rows, rows.select([]), counts, counts), tmp_path, {"checkpoint": "x"})
    assert joined.train[CHOSEN] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert joined.train[3][REJECTED] == 7.0
    assert len(joined.held_out) == 0


def test_batches_hold_every_pair_once_within_the_budget() -> None:
    longest = np.random.default_rng(0).integers(1, 400, size=100)
    grouped = ref_logps.batches(longest, 1000)
    assert sorted(place for batch in grouped for place in batch) == list(range(100))
    assert all(2 * len(batch) * max(longest[batch]) <= 1000 for batch in grouped)
    assert len(grouped) < 60
    assert ref_logps.batches(longest, 10) == [[place] for place in np.argsort(-longest, kind="stable")]
    assert ref_logps.batches(longest[:3], None) == [[0], [1], [2]]
