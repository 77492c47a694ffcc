"""Recipes written to an empty folder, and sources that no test of the recipes depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from posttrain.data import sources
from posttrain.data.sources.base import Source
from posttrain.errors import UserError
from posttrain.recipe import LoadedRecipe, load

Write = Callable[..., Path]
Load = Callable[..., LoadedRecipe]
Problems = Callable[..., list[str]]


@dataclass(frozen=True, kw_only=True)
class Chats(Source):
    take: Literal["top", "all"] = "top"
    states: list[str] = field(default_factory=lambda: ["ready"])


@dataclass(frozen=True, kw_only=True)
class Pairs(Source):
    min_margin: int = 1


def _check_pairs(options: Pairs) -> list[str]:
    return ["min_margin: 9 is more than any pair has"] if options.min_margin == 9 else []


def _kind(name: str, options: type[Source], makes: set[str], check: Callable[[Any], list[str]] = lambda _: []) -> Any:
    return SimpleNamespace(name=name, options=options, makes=frozenset(makes), check=check)


@pytest.fixture
def fake_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """`chats` makes SFT rows, `pairs` preference rows, `both` either."""
    kinds = [
        _kind("chats", Chats, {"sft"}),
        _kind("pairs", Pairs, {"preference"}, _check_pairs),
        _kind("both", Source, {"sft", "preference"}),
    ]
    monkeypatch.setattr(sources, "SOURCES", {kind.name: kind for kind in kinds})


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file of the test's own folder, which is made the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "x.yaml") -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def load_text(write: Write, fake_sources: None) -> Load:
    """Load a recipe from its text and overrides."""
    return lambda text, *overrides: load(write(text), overrides)


@pytest.fixture
def problems(load_text: Load) -> Problems:
    """Return the problems of a recipe that must not load."""

    def problems(text: str, *overrides: str) -> list[str]:
        with pytest.raises(UserError) as caught:
            load_text(text, *overrides)
        return caught.value.problems

    return problems


FULL = """\
name: full
seed: 7
output_dir: out/${name}
model:
  new:
    vocab_size: 512
    hidden_size: 64
    intermediate_size: 128
    num_hidden_layers: 2
    num_attention_heads: 4
    num_key_value_heads: 2
    max_position_embeddings: 256
    rope_theta: 10000.0
    tie_word_embeddings: true
  revision: null
  tokenizer: null
  dtype: float32
  trainable_dtype: float32
  chat_template: chatml
  attn_implementation: sdpa
  trust_remote_code: false
cpt:
  validation_fraction: 0.1
  tokens: 2e6
  text:
    - path: text/a.txt
      share: 1.0
      repeat: false
      revision: null
      config: null
      split: train
      column: text
      language: fi
      license: apache-2.0
  trainer:
    neftune_noise_alpha: 5
teacher:
  engine: endpoint
  model: big
  revision: main
  tokenizer: org/big
  base_url: https://example.org/v1
  api_key_env: BIG_KEY
  max_concurrency: 8
  timeout: 60
  max_attempts: 3
  batch_size: 4
  trust_remote_code: false
judge: {model: judge}
reward:
  model: org/reward
  max_length: 2048
cluster:
  executor: slurm
  tasks: 4
  workers: 2
  server: vllm
  tensor_parallel: 4
  partition: gpu
  time: "10:00:00"
generate:
  - rollout: magpie
    name: written
    rows: 100
    turns: 2
    tag: true
    categories:
      - {name: maths, weight: 2, system: You are asked about maths.}
    instruction: {temperature: 1.0, top_p: 1.0, max_tokens: 64}
  - rollout: respond
    name: answered
    source: {source: chats, path: chats.jsonl}
    respond: all
    n: 4
    best_of: reward
    keep_truncated: true
  - rollout: translate
    name: translated
    rows_from: answered
    to: fi
    min_language_score: 0.8
    min_gzip_ratio: 0.2
    max_length_ratio: 2
  - rollout: rate
    name: rated
    rows_from: translated
    scales: [quality, fluency]
    min_quality: 3
    min_fluency: 3
    retries: 1
data:
  sft:
    - source: chats
      path: chats.jsonl
      name: mine
      revision: main
      config: null
      split: train
      language: [en, fi]
      license: apache-2.0
      fraction: 0.5
      take: all
      states: [ready, done]
    - source: both
      path: more.jsonl
      max_rows: 10
  preference:
    - source: pairs
      path: pairs.jsonl
      min_margin: 2
      repeat: 1.5
  validation:
    fraction: 0.1
    max_rows: 20
sft:
  num_train_epochs: 2
  max_steps: -1
  global_batch_size: 8
  per_device_train_batch_size: 2
  per_device_eval_batch_size: 2
  learning_rate: 5e-6
  lr_scheduler_type: cosine_with_min_lr
  lr_scheduler_kwargs: {min_lr: 1e-8}
  warmup_ratio: 0.03
  weight_decay: 0.1
  adam_beta1: 0.9
  adam_beta2: 0.95
  max_grad_norm: 1.0
  optim: adamw_torch
  max_length: 128
  gradient_checkpointing: true
  logging_steps: 1
  eval_steps: 5
  save_steps: 10
  save_total_limit: 1
  loss_on: all
  packing: wrapped
  quantization: nf4
  lora:
    r: 8
    alpha: 16
    dropout: 0.1
    target_modules: [q_proj, v_proj]
    modules_to_save: [lm_head]
    use_dora: false
    use_rslora: true
    bias: none
    merge: false
  trainer:
    activation_offloading: true
dpo:
  beta: 0.01
  loss_type: [sigmoid, bco_pair]
  label_smoothing: 0.1
  reference: precomputed
  shared_prefix: "off"
  tokens_per_row: 2048
  lora: ${sft.lora}
  trainer:
    use_weighting: true
eval:
  models: [base, sft, instruct]
  dtype: bfloat16
  batch_size: 2
  resamples: 200
  baselines:
    - {name: rival, path: org/rival, revision: main}
  tasks:
    - {task: ifeval, name: followed, language: fi, path: prompts.jsonl, max_samples: 5, max_tokens: 100, models: [sft]}
    - {task: hellaswag, fewshot_path: examples.jsonl, num_fewshot: 3, chat: true}
    - {task: flores, source: fi, target: en, split: dev}
    - {task: perplexity, path: held-out.jsonl, column: text, max_length: 512}
    - {task: mt-bench, against: base}
    - {task: instruct, max_tokens: 50}
quantize:
  variants:
    - {bits: 3, group_size: 32, desc_act: false, damp_percent: 0.05, sym: false, mse: 2.4}
    - {bits: 8, group_size: -1}
  calibration: {path: text/a.txt, name: texts, samples: 16, length: 256}
  heldout: {path: more.jsonl, revision: main, config: null, split: test, column: text, samples: 8, length: 256}
  of: sft
  default: gptq-8bit--1g-actorder_True
  backends: [auto, torch, marlin]
  system: Be brief.
  device: cpu
  compute_dtype: bfloat16
  batch_size: 2
  threads: 4
release:
  name: Full
  org: lab
  checkpoints: [sft, instruct]
  base_model: org/full
  license: llama3.1
  license_reason: it is said why
  license_files: [LICENSE.txt]
  description: A model.
  limitations: [It knows little.]
  prompt: Who is there?
  max_new_tokens: 16
  signing: {method: key, key: key.pem, password_env: KEY_PASSWORD, later: false}
  public_words: [lumi]
launch:
  num_processes: 2
  cpu: true
  config: launch/cpu.yaml
  hardware: MI250X
  slurm:
    nodes: 2
    gpus_per_node: 8
    partition: gpu
    time: 24:00:00
    account: project
    script: train
    sbatch_args: {}
    cpu:
      partition: small
      time: 04:00:00
      cpus: 32
      sbatch_args: {}
report_to: [tensorboard]
"""


@pytest.fixture
def full() -> str:
    """A recipe that gives every section, nearly every key."""
    return FULL


@pytest.fixture
def small() -> str:
    """The least that loads: `name` and a model."""
    return "name: small\nmodel: {base: some/model}\n"
