"""The training stages on a tiny model: full weights, LoRA, QLoRA, merging, chaining, resuming, and their checks."""

from __future__ import annotations

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from posttrain.errors import Interrupted, UserError
from posttrain.recipe.schema import Dpo, Launch, Lora, Model, Recipe, Sft
from posttrain.stages.context import Context
from posttrain.train.dpo import train_dpo
from posttrain.train.model import load_model
from posttrain.train.ref_logps import compute_ref_logps
from posttrain.train.reference import PRECOMPUTED, reference_kind
from posttrain.train.sft import train_sft
from posttrain.train.tokenize import tokenize_preference, tokenize_sft

SFT = Sft(
    global_batch_size=4,
    per_device_train_batch_size=2,
    num_train_epochs=2,
    learning_rate=5e-3,
    max_length=128,
    packing="none",
    logging_steps=1,
    save_steps=3,
)
DPO = Dpo(
    global_batch_size=4,
    per_device_train_batch_size=2,
    num_train_epochs=2,
    learning_rate=5e-3,
    max_length=128,
    logging_steps=1,
    save_steps=3,
)
LORA = Lora(r=4, alpha=8)
ANSWERS = ["The fox runs.", "Vene on punainen.", "The lake is calm.", "Järvi on tyyni."]


def write_rows(folder: Path) -> Path:
    """Write a data folder with 12 training and 3 held-out rows of each kind."""
    for split, numbers in (("train", range(12)), ("validation", range(12, 15))):
        common = [{"id": f"{n:04d}", "source": "test", "language": "en", "license": "", "meta": "{}"} for n in numbers]
        users = [[{"role": "user", "content": f"Question {n}?"}] for n in numbers]
        answers = [[{"role": "assistant", "content": ANSWERS[n % 4]}] for n in numbers]
        worse = [[{"role": "assistant", "content": "no " * (1 + n % 3)}] for n in numbers]
        chats = [{"messages": user + answer, **rest} for user, answer, rest in zip(users, answers, common, strict=True)]
        pairs = [
            {"prompt": user, "chosen": answer, "rejected": bad, "margin": 1.0, **rest}
            for user, answer, bad, rest in zip(users, answers, worse, common, strict=True)
        ]
        for name, rows in (("sft", chats), ("preference", pairs)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data"))


def recipe_for(checkpoint: Path, **sections: Any) -> Recipe:
    model = Model(base=str(checkpoint), dtype="float32", chat_template="llama-3.1")
    return Recipe(name="test", model=model, launch=Launch(cpu=True), **sections)


BUILDS = {
    "tokenize-sft": tokenize_sft,
    "tokenize-preference": tokenize_preference,
    "sft": train_sft,
    "ref-logps": compute_ref_logps,
    "dpo": train_dpo,
}
TOKENS = {"sft": "tokenize-sft", "ref-logps": "tokenize-preference", "dpo": "tokenize-preference"}


def run_stage(stage: str, recipe: Recipe, folder: Path, inputs: dict[str, Path], resume: bool = False) -> Context:
    """Run a stage, for one that trains the stages first that make its tokens and reference log-probabilities."""
    if (name := TOKENS.get(stage)) and name not in inputs:
        tokens = folder.with_name(f"{folder.name}-tokens")
        if not tokens.exists():
            run_stage(name, recipe, tokens, {"data": inputs["data"]})
        inputs = {**inputs, name: tokens}
    stored = recipe.dpo is not None and reference_kind(recipe.dpo) == PRECOMPUTED
    if stage == "dpo" and stored and "ref-logps" not in inputs:
        reference = folder.with_name(f"{folder.name}-ref-logps")
        if not reference.exists():
            run_stage("ref-logps", recipe, reference, inputs)
        inputs = {**inputs, "ref-logps": reference}
    folder.mkdir(parents=True, exist_ok=True)
    context = Context(
        stage=stage,
        recipe=recipe,
        resolved={},
        folder=folder,
        inputs=inputs,
        resume=resume,
        rank=0,
        world_size=1,
        console=Console(file=io.StringIO()),
    )
    BUILDS[stage](context)
    return context


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.state_dict())


def assert_equal(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_sft_learns_and_leaves_a_checkpoint_that_stops(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    context = run_stage("sft", recipe_for(checkpoint, sft=SFT), tmp_path / "sft", {"data": data})
    assert context.metrics["after/loss"] < context.metrics["before/loss"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "sft")
    generation = json.loads((tmp_path / "sft" / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert "{% generation" not in tokenizer.chat_template
    assert "{%- generation" not in tokenizer.chat_template
    assert tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hei"}], tokenize=False, add_generation_prompt=True
    ).endswith("assistant<|end_header_id|>\n\n")
    written = {path.name for path in (tmp_path / "sft").iterdir() if path.is_file()}
    assert {"model.safetensors", "history.json", "loss.png"} <= written
    assert not [name for name in written if name.endswith((".bin", ".pt"))]


def test_same_seed_gives_the_same_weights(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_stage("sft", recipe_for(checkpoint, sft=SFT), tmp_path / name, {"data": data})
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    other = replace(recipe_for(checkpoint, sft=SFT), seed=7)
    run_stage("sft", other, tmp_path / "three", {"data": data})
    assert (tmp_path / "one/model.safetensors").read_bytes() != (tmp_path / "three/model.safetensors").read_bytes()


def test_dpo_starts_at_ln2_and_prefers_the_chosen(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    context = run_stage("dpo", recipe_for(checkpoint, dpo=DPO), tmp_path / "dpo", {"data": data, "sft": checkpoint})
    history = json.loads((tmp_path / "dpo" / "history.json").read_text())
    first = next(entry for entry in history if "loss" in entry)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-3)
    assert context.metrics["before/rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert context.metrics["after/rewards/accuracies"] == 1.0
    assert (tmp_path / "dpo" / "reward_margin.png").stat().st_size > 1000


def test_dpo_refuses_a_reference_that_is_another_model(model: Any, preference: Any) -> None:
    import copy

    from tests.train.conftest import pair_rows

    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    trainer = preference(model, other, pair_rows(4), global_batch_size=4, beta=1.0)
    with pytest.raises(RuntimeError, match="ln 2"):
        trainer.train()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_lora_merges_into_a_checkpoint_of_its_own(
    checkpoint: Path, data: Path, tmp_path: Path, quantization: Any
) -> None:
    settings = replace(SFT, lora=LORA, quantization=quantization)
    context = run_stage("sft", recipe_for(checkpoint, sft=settings), tmp_path / "sft", {"data": data})
    assert context.metrics["after/loss"] < context.metrics["before/loss"]
    assert context.metrics["merge_logit_difference"] < 1e-4
    assert context.metrics["saved_logit_difference"] == 0.0  # the recipe's dtype is float32
    assert (tmp_path / "sft/adapter/adapter_model.safetensors").is_file()
    before, after = weights(checkpoint), weights(tmp_path / "sft")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("proj" in name for name in changed)


def test_an_evaluation_leaves_a_quantised_model_with_its_gradients(checkpoint: Path) -> None:
    recipe = recipe_for(checkpoint, sft=SFT)
    model = load_model(checkpoint, recipe.model, dtype="float32", quantization="nf4")
    ids = torch.arange(20, 50)[None]

    def gradient() -> torch.Tensor:
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
        model.train()
        model(inputs_embeds=inputs).logits.square().sum().backward()
        assert inputs.grad is not None
        return inputs.grad

    before = gradient()
    assert before.abs().max() > 0
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    assert torch.equal(gradient(), before)


def test_dora_trains(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    settings = replace(SFT, lora=replace(LORA, use_dora=True))
    context = run_stage("sft", recipe_for(checkpoint, sft=settings), tmp_path / "sft", {"data": data})
    assert context.metrics["merge_logit_difference"] < 1e-4


def test_dpo_goes_on_with_the_adapter_of_sft(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """SFT ends as an adapter; DPO trains it further, against a frozen copy; merged, it equals base and adapter."""
    from peft import PeftModel

    adapter = replace(LORA, merge=False)
    recipe = recipe_for(checkpoint, sft=replace(SFT, lora=adapter), dpo=replace(DPO, lora=adapter))
    run_stage("sft", recipe, tmp_path / "sft", {"data": data})
    config = json.loads((tmp_path / "sft/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(checkpoint)
    assert not (tmp_path / "sft/model.safetensors").exists()
    context = run_stage("dpo", recipe, tmp_path / "dpo", {"data": data, "sft": tmp_path / "sft"})
    assert context.metrics["before/rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert context.metrics["after/rewards/accuracies"] == 1.0

    merging = replace(recipe, dpo=replace(DPO, lora=LORA))
    run_stage("dpo", merging, tmp_path / "merged", {"data": data, "sft": tmp_path / "sft"})
    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    apart = PeftModel.from_pretrained(base, str(tmp_path / "dpo")).eval()
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    ids = torch.arange(20, 50)[None]
    with torch.no_grad():
        assert torch.allclose(apart(ids).logits, whole(ids).logits, atol=1e-4)


def test_dpo_on_all_weights_starts_from_a_merged_adapter(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(checkpoint, sft=replace(SFT, lora=replace(LORA, merge=False)), dpo=DPO)
    run_stage("sft", recipe, tmp_path / "sft", {"data": data})
    context = run_stage("dpo", recipe, tmp_path / "dpo", {"data": data, "sft": tmp_path / "sft"})
    assert context.metrics["before/rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert (tmp_path / "dpo/model.safetensors").is_file()


class StopAt(TrainerCallback):
    """Sends this process a signal at a step, as a scheduler would."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_interrupted_and_resumed_equals_uninterrupted(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from posttrain.train import trl

    inputs = {"data": data, "sft": checkpoint}
    recipe = recipe_for(checkpoint, sft=SFT, dpo=DPO)
    whole = run_stage(stage, recipe, tmp_path / "whole", inputs)
    with monkeypatch.context() as patch:
        original = trl.base.BuildTrainer.__init__

        def with_signal(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            self.add_callback(StopAt(3, signal.SIGTERM))

        patch.setattr(trl.base.BuildTrainer, "__init__", with_signal)
        with pytest.raises(Interrupted, match="step 4 of 6"):
            run_stage(stage, recipe, tmp_path / "cut", inputs)
    cut = run_stage(stage, recipe, tmp_path / "cut", inputs, resume=True)
    assert_equal(tmp_path / "whole", tmp_path / "cut")
    assert cut.reached == whole.reached == "after its last step, which is saved"
    assert cut.metrics["steps"] == whole.metrics["steps"] == 6
    for key in ("before/loss", "after/loss"):
        assert cut.metrics[key] == whole.metrics[key]


def test_a_checkpoint_cut_off_while_saving_is_not_resumed_from(tmp_path: Path) -> None:
    from posttrain.train.checkpoints import SAVING, last_checkpoint, publish

    record = {"parts": {}, "world_size": 1, "sharding": "none"}
    for step in (2, 10, 12):
        written = tmp_path / SAVING / f"checkpoint-{step}"
        written.mkdir(parents=True)
        (written / "trainer_state.json").write_text("{}")
        publish(tmp_path, step, None, record)
    (tmp_path / "checkpoint-12" / "complete").unlink()
    (tmp_path / SAVING / "checkpoint-14").mkdir(parents=True)
    assert last_checkpoint(tmp_path, record, print) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]


def test_weights_trained_in_another_dtype_are_an_error(model: Any) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from posttrain.train.callbacks import CheckDtypes

    check = CheckDtypes(torch.float32, torch.float32, print)
    optimizer = torch.optim.AdamW(model.parameters())
    arguments = TrainingArguments(use_cpu=True, bf16=False)
    check.on_step_end(arguments, TrainerState(), TrainerControl(), model=model, optimizer=optimizer)
    assert check.lines
    half = model.to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="trained in torch"):
        CheckDtypes(torch.float32, None, print).on_step_end(
            arguments, TrainerState(), TrainerControl(), model=half, optimizer=optimizer
        )


def test_rows_that_do_not_fit_are_counted(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    short = replace(SFT, max_length=40)
    with pytest.raises(UserError, match="no trained token within max_length"):
        run_stage("sft", recipe_for(checkpoint, sft=short), tmp_path / "sft", {"data": data})


def test_an_embedding_smaller_than_the_tokenizer_is_refused(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    import shutil

    swollen = tmp_path / "swollen"
    shutil.copytree(checkpoint, swollen)
    tokenizer = AutoTokenizer.from_pretrained(swollen)
    tokenizer.add_tokens([f"<extra_{n}>" for n in range(100)])
    tokenizer.save_pretrained(swollen)
    with pytest.raises(UserError, match="embedding"):
        run_stage("sft", recipe_for(swollen, sft=SFT), tmp_path / "sft", {"data": data})
