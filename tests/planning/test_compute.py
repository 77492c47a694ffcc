"""Steps, floating-point operations, hours and energy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import UserError
from posttrain.planning.compute import Counted, Length, cost, counted, length, step_flops
from posttrain.planning.hardware import HARDWARE, named, used_share
from posttrain.planning.model import KNOWN, shape
from posttrain.planning.setup import adapter
from posttrain.planning.step import Setup
from posttrain.recipe.schema import Cpt, Dpo, Lora, Recipe, Sft
from posttrain.train.throughput import PEAK_BF16, flops_per_token

SIZES = shape(KNOWN["LumiOpen/Llama-Poro-2-8B-base"])
SETUP = Setup(shape=SIZES, stage="sft", rows=1, length=4096, devices=8, accumulate=16)


def per_token(setup: Setup) -> float:
    return step_flops(setup, 1.0)[0]


def test_full_weights_cost_what_the_log_counts() -> None:
    from transformers import LlamaConfig

    values = {key: value for key, value in KNOWN["LumiOpen/Llama-Poro-2-8B-base"].items() if key != "model_type"}
    matrices = SIZES.parameters.total - SIZES.parameters.embedding
    logged = flops_per_token(matrices, LlamaConfig(**values), 4096)
    assert per_token(SETUP) == pytest.approx(logged, rel=1e-3)  # the log counts norms among the matrices


def test_full_weights_cost_six_and_adapters_four_a_parameter() -> None:
    short = replace(SETUP, length=1)
    matrices = SIZES.matmul_parameters
    assert per_token(short) == pytest.approx(6 * matrices, rel=1e-3)
    lora = adapter(Lora(r=16), SIZES)
    assert lora is not None
    assert per_token(replace(short, adapter=lora)) == pytest.approx(4 * matrices + 4 * lora.parameters, rel=1e-3)


def test_checkpointing_adds_a_forward_pass_of_the_layers_and_a_reference_one_of_all() -> None:
    own = per_token(SETUP)
    again, still = step_flops(replace(SETUP, checkpointing=True), 1.0)
    attention = 4 * SIZES.layers * SIZES.queries * 4096
    assert again - own == pytest.approx(2 * SIZES.parameters.blocks + attention)
    assert still == own
    pairs = replace(SETUP, stage="dpo")
    assert per_token(pairs) == own, "with the reference's log-probabilities at hand"
    with_reference = per_token(replace(pairs, forward_reference=True))
    assert with_reference - own == pytest.approx(own / 3, rel=1e-6)


def test_steps_are_those_that_transformers_takes(tmp_path: Path) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    class Rows(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return 107

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": torch.zeros(1), "labels": torch.zeros(1)}

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": ((x * self.weight - labels) ** 2).mean()}

    for rows, accumulate, epochs in ((2, 4, 1.0), (3, 5, 1.5), (1, 8, 3.0), (4, 1, 0.3)):
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=accumulate,
            num_train_epochs=epochs,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = Trainer(Line(), arguments, train_dataset=Rows())
        trainer.train()
        section = Sft(
            global_batch_size=rows * accumulate,
            per_device_train_batch_size=rows,
            num_train_epochs=epochs,
            max_length=16,
        )
        setup = replace(SETUP, devices=1, rows=rows, accumulate=accumulate)
        found = length(Recipe(name="x", sft=section), "sft", setup, Counted(rows=107, tokens=1070))
        assert found.steps == trainer.state.global_step
        if epochs.is_integer():
            assert found.tokens == pytest.approx(1070 * epochs)


def test_steps_without_rows_are_known_only_where_the_recipe_says() -> None:
    recipe = Recipe(
        name="x",
        sft=Sft(global_batch_size=128, max_length=4096),
        dpo=Dpo(global_batch_size=64, max_length=4096, max_steps=10),
        cpt=Cpt(global_batch_size=512, max_length=8192, tokens=165e9),
    )
    assert length(recipe, "sft", SETUP, None) == Length(steps=None, step_tokens=128 * 4096, why="")
    pairs = length(recipe, "dpo", SETUP, None)
    assert (pairs.steps, pairs.tokens) == (10, 10 * 64 * 4096 * 2)
    assert length(recipe, "cpt", SETUP, None).steps == 39340  # 165B tokens by 512 rows of 8,192


def test_rows_are_counted_from_a_manifest(tmp_path: Path) -> None:
    assert counted(tmp_path) is None
    from posttrain.stages.manifest import Manifest

    def write(metrics: dict[str, Any]) -> None:
        plain: dict[str, Any] = {
            name: {} for name in ("parts", "recipe", "inputs", "files", "versions", "hardware", "times")
        }
        Manifest(
            stage="tokenize-sft", fingerprint="f", sources=[], digest="d", seed=1, world_size=1, code=None,
            metrics=metrics, **plain,
        ).write(tmp_path)  # fmt: skip

    write({"rows": 90, "blocks": 12, "tokens": 4000})
    assert counted(tmp_path) == Counted(rows=12, tokens=4000)
    write({"rows": 90, "tokens": 4000})
    assert counted(tmp_path) == Counted(rows=90, tokens=4000)
    write({"rows": 90})
    assert counted(tmp_path) is None


def test_hours_and_energy_follow_from_the_operations() -> None:
    hardware = HARDWARE["A100-80G"]
    takes = cost(SETUP, Length(steps=100, step_tokens=1e6, why=""), hardware)
    assert takes.used == takes.mfu == hardware.used
    assert takes.seconds == pytest.approx(step_flops(SETUP, 1e6)[0] / (8 * hardware.peak * hardware.used))
    assert takes.hours == pytest.approx(100 * takes.seconds / 3600)
    assert takes.hours is not None
    assert takes.kwh == pytest.approx(takes.hours * 8 * 0.4)
    again = cost(replace(SETUP, checkpointing=True), Length(steps=None, step_tokens=1e6, why=""), hardware)
    assert (again.hours, again.kwh) == (None, None)
    assert again.used * 0.74 < again.mfu < again.used * 0.8


def test_shares_of_the_peak_are_lower_in_shards_and_on_4_bit_weights() -> None:
    for hardware in HARDWARE.values():
        sharded = used_share(hardware, replace(SETUP, strategy="fsdp2"))
        assert used_share(hardware, replace(SETUP, strategy="fsdp2", devices=1)) == hardware.used
        assert sharded < hardware.used < 0.5
        assert used_share(hardware, replace(SETUP, nf4=True)) < hardware.used
        assert 0.8 * hardware.memory < hardware.usable < 0.96 * hardware.memory


def test_peaks_are_those_of_the_training_log() -> None:
    for name, peak in PEAK_BF16.items():
        found = [hardware for key, hardware in HARDWARE.items() if name.replace(" ", "") in key]
        assert found
        assert all(hardware.peak == pytest.approx(peak, rel=0.002) for hardware in found)


@pytest.mark.parametrize("written", ["rtx4090", "RTX 4090", "rtx-4090"])
def test_hardware_is_found_by_its_name(written: str) -> None:
    assert named(written) is HARDWARE["RTX4090"]


def test_unknown_hardware_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean A100-80G"):
        named("A100-80")
