"""The keys under `trainer` are those of TRL's classes, found without importing them."""

from __future__ import annotations

import dataclasses

import pytest

from posttrain.recipe import schema, trainer_keys
from tests.recipe.conftest import Load, Problems


@pytest.mark.parametrize("name", ["SFTConfig", "DPOConfig"])
def test_fields_are_those_of_the_class(name: str) -> None:
    import trl

    fields = {field.name for field in dataclasses.fields(getattr(trl, name)) if field.init}
    assert set(trainer_keys.trainer_fields(name) or ()) == fields


def test_fields_that_the_recipe_owns_exist() -> None:
    fields = (trainer_keys.trainer_fields("SFTConfig") or frozenset()) | (
        trainer_keys.trainer_fields("DPOConfig") or frozenset()
    )
    assert set(trainer_keys._OWNED) | set(trainer_keys._OWNED_BY_SFT) | set(trainer_keys._FIXED) <= fields


def test_fields_pass_through(load_text: Load, full: str) -> None:
    loaded = load_text(
        full, "sft.trainer.dataloader_num_workers=2", "dpo.trainer.accelerator_config={even_batches: false}"
    )
    assert loaded.recipe.sft is not None
    assert loaded.recipe.dpo is not None
    assert loaded.recipe.sft.trainer == {"activation_offloading": True, "dataloader_num_workers": 2}
    assert loaded.recipe.dpo.trainer["accelerator_config"] == {"even_batches": False}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("sft.trainer.neftune_noise_alha=5", "not a field of SFTConfig; did you mean neftune_noise_alpha?"),
        ("cpt.trainer.neftune_noise_alha=5", "not a field of SFTConfig; did you mean neftune_noise_alpha?"),
        ("dpo.trainer.sync_ref_modl=true", "not a field of DPOConfig; did you mean sync_ref_model?"),
        ("sft.trainer.sync_ref_model=true", "not a field of SFTConfig"),
        ("sft.trainer.zzzzzz=1", "not a field of SFTConfig"),
        ("sft.trainer.learning_rate=1", "the recipe has a key of its own for this; use sft.learning_rate"),
        ("dpo.trainer.beta=1", "the recipe has a key of its own for this; use dpo.beta"),
        ("cpt.trainer.max_length=1", "the recipe has a key of its own for this; use cpt.max_length"),
        ("sft.trainer.per_device_train_batch_size=1", "use sft.per_device_train_batch_size"),
        ("sft.trainer.gradient_accumulation_steps=1", "use sft.global_batch_size, from which accumulation follows"),
        ("dpo.trainer.output_dir=x", "use output_dir"),
        ("sft.trainer.seed=1", "use seed"),
        ("sft.trainer.report_to=[]", "use report_to"),
        ("sft.trainer.packing=true", "use sft.packing"),
        ("sft.trainer.packing_strategy=bfd", "use sft.packing"),
        ("sft.trainer.assistant_only_loss=true", "use sft.loss_on"),
        ("sft.trainer.bf16=true", "use model.dtype"),
        ("dpo.trainer.trust_remote_code=true", "use model.trust_remote_code"),
        ("dpo.trainer.warmup_steps=5", "use dpo.warmup_ratio"),
        ("dpo.trainer.precompute_ref_log_probs=true", "use dpo.reference"),
        ("cpt.trainer.packing=false", "cannot be set; pretraining packs blocks of text and trains every token"),
        ("sft.trainer.resume_from_checkpoint=x", "cannot be set; a stage that was cut off is resumed by itself"),
        ("sft.trainer.dataset_kwargs={}", "cannot be set; trainers get rows of token ids, prepared beforehand"),
    ],
)  # fmt: skip
def test_problems(problems: Problems, full: str, override: str, problem: str) -> None:
    (found,) = problems(full, override)
    assert found.startswith(f"command line: {override.partition('=')[0]}: ")
    assert found.endswith(problem)


def test_a_trainer_that_is_no_mapping(problems: Problems, full: str) -> None:
    assert problems(full, "sft.trainer=[a]") == ["command line: sft.trainer: must be a mapping, not a list"]


def test_an_empty_trainer_reads_no_sources(load_text: Load, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_keys, "trainer_fields", lambda _: pytest.fail("read"))
    load_text(small + "data: {sft: [{source: chats, path: a}]}\nsft: {trainer: {}}\n")


def test_without_trl_the_keys_cannot_be_checked(problems: Problems, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_keys, "trainer_fields", lambda _: None)
    line = full.splitlines().index("    activation_offloading: true")
    assert problems(full, "dpo=null", "cpt.trainer=null") == [
        f"x.yaml:{line}: sft.trainer: its keys cannot be checked; install trl and transformers"
    ]


def test_no_field_of_the_schema_hides_behind_the_trainer() -> None:
    """A key of the schema that TRL has too is refused under `trainer`."""
    for stage, section in (("cpt", schema.Cpt), ("sft", schema.Sft), ("dpo", schema.Dpo)):
        for field in dataclasses.fields(section):
            assert field.name == "trainer" or not trainer_keys.passes_through(stage, field.name)
