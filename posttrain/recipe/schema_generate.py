"""The sections of a recipe that have a language model write rows: the models asked, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer is drawn. `temperature: 0` is greedy; `max_tokens` bounds what is written, not the prompt."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 4096
    stop: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A model that writes or judges.

    `engine: endpoint` asks an OpenAI-compatible server at `base_url`; `local` runs the model in this process, in
    batches of `batch_size`; `sample` asks no model: it answers with sentences of the package, for smoke runs.
    `api_key_env` names the environment variable with the key, so that no recipe holds one. `tokenizer` is the hub id or
    folder of the tokenizer, where `model` is only a server's name for it. Times are in seconds, `max_concurrency` in
    requests: fewer are sent while the server pushes back.
    """

    engine: Literal["endpoint", "local", "sample"] = "endpoint"
    model: str
    revision: str | None = None
    tokenizer: str | None = None
    base_url: str = "http://localhost:8000/v1"
    api_key_env: str | None = None
    max_concurrency: int = 256
    timeout: float = 600.0
    max_attempts: int = 6
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    batch_size: int = 8
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """A model that scores a conversation with one number, run in this process."""

    model: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    batch_size: int = 8
    max_length: int = 4096
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How `generate` is spread over tasks, each of which asks a server of its own (datatrove).

    `server: vllm` or `sglang` starts one a task, for the teacher's `model`, with the options `server_args`; `endpoint`
    starts none: every task asks the teacher's `base_url`. `executor: local` runs at most `workers` tasks at once on
    this machine, `slurm` submits an array of jobs and needs `partition` and `time`; `sbatch_args` are further options
    of sbatch, such as `account`. A job that nears its end is told so `drain` seconds before, finishes what is under
    way and goes back into the queue.

    A task has `nodes` nodes with `gpus` each, by default as many as `tensor_parallel` times `pipeline_parallel` need.
    `env` are environment variables, in plain sight of whoever can read the logs: no keys.
    """

    executor: Literal["local", "slurm"] = "local"
    tasks: int = 1
    workers: int | None = None
    server: Literal["vllm", "sglang", "endpoint"] = "endpoint"
    server_args: dict[str, Any] = field(default_factory=dict)
    max_model_len: int = 8192
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    nodes: int = 1
    gpus: int | None = None
    cpus: int = 8
    mem_per_cpu_gb: int = 4
    partition: str | None = None
    time: str | None = None
    qos: str | None = None
    sbatch_args: dict[str, Any] = field(default_factory=dict)
    drain: int = 300
    venv_path: str | None = None
    env: dict[str, str] = field(default_factory=dict)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of each node of a task."""
        if self.gpus is not None:
            return self.gpus
        return 0 if self.server == "endpoint" else -(-self.tensor_parallel * self.pipeline_parallel // self.nodes)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The keys of any entry under `generate`.

    Rows come from `source`, an entry as under `data.sft`, or from the entry of `generate` that `rows_from` names,
    before this one. Where the rollout needs no answers (`respond`, and `translate` of user turns), a source may hold
    prompts without any. `name` is what `{source: generated, path: NAME}` under `data.sft` calls the rows. An answer
    that reached `max_tokens` fails its row unless `keep_truncated`. `max_rows` takes the first so many rows, for
    trials.
    """

    rollout: str
    name: str
    language: str | None = None
    source: Any = None
    rows_from: str | None = None
    max_rows: int | None = None
    keep_truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class Respond(Rollout):
    """Writes answers to prompts.

    `respond: last` answers the last user turn anew; `all` every one in turn, each seeing the new answers before it;
    `keep` leaves rows of several turns as they are, and answers those of one and those that end with a user turn. Of
    `n` samples the best is taken: the `first`, the one that the `judge` rates highest, that the `reward` model does, or
    `both` (the mean of the ranks).
    """

    respond: Literal["last", "all", "keep"] = "last"
    n: int = 1
    best_of: Literal["first", "judge", "reward", "both"] = "first"
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, kw_only=True)
class Category:
    """A kind of instruction: `weight` is its share of the rows before division by the sum of all weights."""

    name: str
    weight: float = 1.0
    system: str | None = None


@dataclass(frozen=True, kw_only=True)
class MagpieRollout(Rollout):
    """Has the teacher write the instruction itself, from its bare chat template, then answer it, for `turns` turns.

    `rows` conversations are written, divided among the `categories` by their weights (built-in ones where the list is
    empty). With `tag` the judge says difficulty, quality and category of each first instruction.
    """

    rows: int
    turns: int = 1
    categories: list[Category] = field(default_factory=list)
    tag: bool = False
    instruction: Sampling = field(default_factory=lambda: Sampling(temperature=1.0, max_tokens=1024))
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))


@dataclass(frozen=True, kw_only=True)
class Rate(Rollout):
    """Has the judge rate the last answer of each row, 1 to 5: its `quality`, its `fluency`, or both.

    A row below `min_quality` or `min_fluency` fails. An answer of the judge that holds no rating is asked for again
    `retries` times; then the row is unrated, and fails only if a minimum is asked for.
    """

    scales: list[Literal["quality", "fluency"]] = field(default_factory=lambda: ["quality"])
    min_quality: float | None = None
    min_fluency: float | None = None
    retries: int = 2
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0, max_tokens=1024))


@dataclass(frozen=True, kw_only=True)
class Example:
    """A line and its translation, shown to the model before the line to translate."""

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Translate(Rollout):
    """Translates user turns (or with `turns: all` every turn) line by line to the language `to`.

    Code fences, URLs and placeholders stay as they are. A row fails whose translation is in another language (by
    `min_language_score`, the share of judged lines in `to`), repeats itself (`min_gzip_ratio`, compressed to plain
    size), or is longer than the original by more than `max_length_ratio`.
    """

    to: str
    turns: Literal["user", "all"] = "user"
    examples: list[Example] = field(default_factory=list)
    min_language_score: float = 0.9
    min_gzip_ratio: float = 0.3
    max_length_ratio: float = 1.5
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0, max_tokens=1024))


ROLLOUTS: dict[str, type[Rollout]] = {
    "respond": Respond,
    "magpie": MagpieRollout,
    "rate": Rate,
    "translate": Translate,
}
