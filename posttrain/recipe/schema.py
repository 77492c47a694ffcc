"""What a recipe may say: one frozen dataclass a section, with the default of every key.

Keys that TRL or transformers already name keep their names. A key that is not here is an error; any other
`SFTConfig` or `DPOConfig` field goes under `trainer`. This module imports nothing heavy, because a recipe is
read before anything else. The sections of `data` are in `posttrain.recipe.schema_data`, those of `teacher`, `judge`,
`reward` and `generate` in `posttrain.recipe.schema_generate`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from posttrain.recipe.schema_data import Data, Validation
from posttrain.recipe.schema_evaluate import Evaluation
from posttrain.recipe.schema_generate import Cluster, RewardModel, Teacher
from posttrain.recipe.schema_launch import Slurm
from posttrain.recipe.schema_quantize import Quantize
from posttrain.recipe.schema_release import Release

__all__ = [
    "Cpt",
    "Data",
    "Dpo",
    "Evaluation",
    "Launch",
    "Lora",
    "Model",
    "NewModel",
    "Quantize",
    "Recipe",
    "Release",
    "Sft",
    "Slurm",
    "TextSource",
    "Training",
    "Validation",
]


@dataclass(frozen=True, kw_only=True)
class NewModel:
    """A Llama made from scratch, its tokenizer trained on the text of `cpt`; for trials and tests.

    Sizes are in units of the model: `vocab_size` in tokens, special tokens included; the others in dimensions.
    """

    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model to start from.

    `base` is a hub id or a folder; `new` makes one instead. `dtype` is what the forward pass computes in and what
    checkpoints are saved in; weights that are trained are kept in `trainable_dtype`, frozen ones in `dtype`.
    `chat_template` is a built-in name, a Jinja file, or `tokenizer` for the tokenizer's own.
    """

    base: str | None = None
    revision: str | None = None
    new: NewModel | None = None
    tokenizer: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    trainable_dtype: Literal["float32", "bfloat16"] = "float32"
    chat_template: str = "tokenizer"
    attn_implementation: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters. `merge` ends the stage with a full checkpoint instead of an adapter."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"
    modules_to_save: list[str] | None = None
    use_dora: bool = False
    use_rslora: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    merge: bool = True


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the three training stages share. Lengths are in tokens, batch sizes in rows as the trainer sees them.

    `global_batch_size` is what one optimiser step sees over all processes; gradient accumulation follows from it.
    `eval_steps` 0 evaluates only before and after training. `trainer` passes further fields of TRL's config
    through, checked against it.
    """

    num_train_epochs: float = 1.0
    max_steps: int = -1
    global_batch_size: int = 32
    per_device_train_batch_size: int = 1
    per_device_eval_batch_size: int = 1
    learning_rate: float = 1.0e-5
    lr_scheduler_type: str = "linear"
    lr_scheduler_kwargs: dict[str, Any] = field(default_factory=dict)
    warmup_ratio: float = 0.0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    optim: str = "adamw_torch"
    max_length: int = 4096
    gradient_checkpointing: bool = False
    logging_steps: int = 10
    eval_steps: int = 0
    save_steps: int = 500
    save_total_limit: int = 2
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """Plain text to pretrain on: a file or folder of .txt, .jsonl or .parquet, or a hub id.

    `share` is the part of all training tokens that come from this text; every text of a recipe has one, or none has.
    A text that runs out before the training ends is begun again in another order, or ends it with `repeat: false`.
    """

    path: str
    share: float | None = None
    repeat: bool = True
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    column: str = "text"
    language: str | None = None
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cpt(Training):
    """Continued pretraining: text packed into blocks of `max_length` tokens, loss on every token.

    Where the texts have shares, they are tokenised by a stage of their own and mixed block by block; otherwise all of
    them are read into memory and shuffled together. `tokens` is how many to train on, instead of `max_steps` and
    `num_train_epochs`. An epoch of a mixture ends when the first of its texts has been read once.
    """

    text: list[TextSource] = field(default_factory=list)
    tokens: float | None = None
    validation_fraction: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Sft(Training):
    """Supervised fine-tuning on chats.

    `loss_on: assistant` trains the assistant's text and its end-of-turn token. `packing: bfd` fills rows of
    `max_length` by best-fit decreasing and keeps documents apart; `wrapped` cuts one stream; `none` pads.
    """

    loss_on: Literal["assistant", "all"] = "assistant"
    packing: Literal["bfd", "wrapped", "none"] = "bfd"
    lora: Lora | None = None
    quantization: Literal["none", "nf4"] = "none"


@dataclass(frozen=True, kw_only=True)
class Dpo(Training):
    """Direct preference optimisation from the SFT checkpoint, which is also its reference.

    `reference` says where the reference log-probabilities come from: `precomputed` by the ref-logps stage, so that
    only the policy is in memory; `adapter_off`: the policy with its adapter off, or with a frozen copy of the adapter
    that it started from; `model`: a second copy of the model. Not given, it is `adapter_off` with `lora` and
    `precomputed` without.

    `shared_prefix` computes each prompt once, with both responses behind it, which gives the same loss for fewer
    tokens; `auto` leaves it off, saying so, for models whose attention cannot. The pairs of an optimiser step are then
    packed into rows of up to `tokens_per_row` tokens, by default `per_device_train_batch_size` times `max_length`, and
    on a processor at most 1,024.
    """

    beta: float = 0.1
    loss_type: list[str] = field(default_factory=lambda: ["sigmoid"])
    label_smoothing: float = 0.0
    reference: Literal["precomputed", "adapter_off", "model"] | None = None
    shared_prefix: Literal["auto", "on", "off"] = "auto"
    tokens_per_row: int | None = None
    lora: Lora | None = None
    quantization: Literal["none", "nf4"] = "none"


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How `posttrain run` starts the training stages: in its own process, or through accelerate.

    `config` is an accelerate configuration file; `cpu` trains on the processor even where there is a GPU. With `slurm`
    the stages become jobs of a cluster. `hardware` says for which devices `posttrain plan` reckons, and nothing else.
    """

    num_processes: int = 1
    cpu: bool = False
    config: str | None = None
    hardware: Literal["MI250X", "A100-40G", "A100-80G", "H100", "H200", "RTX4090"] | None = None
    slurm: Slurm | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One recipe: everything that determines a chain of stages from rows to checkpoints.

    Each entry of `generate` names a rollout (`schema_generate.ROLLOUTS`), each of `eval.tasks` a task
    (`schema_evaluate.TASKS`); without a `judge` the teacher judges.
    """

    name: str
    seed: int = 42
    output_dir: str = "outputs/${name}"
    model: Model = field(default_factory=Model)
    cpt: Cpt | None = None
    teacher: Teacher | None = None
    judge: Teacher | None = None
    reward: RewardModel | None = None
    cluster: Cluster | None = None
    generate: list[Any] = field(default_factory=list)
    data: Data = field(default_factory=Data)
    sft: Sft | None = None
    dpo: Dpo | None = None
    quantize: Quantize | None = None
    eval: Evaluation | None = None
    release: Release | None = None
    launch: Launch = field(default_factory=Launch)
    report_to: list[str] = field(default_factory=list)
