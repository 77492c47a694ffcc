"""The section `eval` of a recipe: which checkpoints are measured, on what, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class EvalTask:
    """The keys of any entry under `eval.tasks`.

    `name` is what results and tables call it, by default the task with its language. `max_samples` takes the first so
    many samples, and the results say how many there were. `models` names those that it is measured of, as
    `eval.models` does; where it is empty, all are.
    """

    task: str
    name: str | None = None
    max_samples: int | None = None
    models: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TaskData(EvalTask):
    """The keys of a task that reads its samples from one place.

    `path` is a hub id, a file, a folder, or `builtin:` and a path under `data/`; not given, the task's own place on the
    hub, where it has one.
    """

    language: Literal["en", "fi"] = "en"
    path: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ifeval(TaskData):
    """Prompts with instructions that a program can verify (IFEval, arXiv 2311.07911), answered greedily.

    Prompts with an instruction named in `skip_instructions` are left out: some need heliport (extra `language`) to be
    verified. `max_tokens` bounds an answer.
    """

    skip_instructions: list[str] = field(default_factory=list)
    max_tokens: int = 1280


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(TaskData):
    """Questions answered by the likeliest of several continuations; prompts are those of `data/eval/`, run by lm-eval.

    `num_fewshot` examples precede each question, by default as many as on the reference's cards. They come from
    `fewshot_path`, or else from the examples' own split of `path`. With `chat` the prompt goes through the chat
    template, as one user turn.
    """

    fewshot_path: str | None = None
    num_fewshot: int | None = None
    chat: bool = False


@dataclass(frozen=True, kw_only=True)
class Translation(EvalTask):
    """Sentences translated greedily after `num_fewshot` examples, measured by BLEU and chrF (sacrebleu).

    `source` and `target` are the languages. `path` is a hub id with a configuration for each language (FLORES+), a file
    whose rows hold both sentences, or what two aligned files `PATH.en` and `PATH.fi` have in common. The examples are
    the first of `fewshot_path`, or of the split `dev` of a hub set; where there is neither, the first lines of `path`,
    which are then left out of the samples.
    """

    source: Literal["en", "fi"] = "en"
    target: Literal["en", "fi"] = "fi"
    path: str = "openlanguagedata/flores_plus"
    revision: str | None = None
    split: str = "devtest"
    fewshot_path: str | None = None
    num_fewshot: int = 8
    max_tokens: int = 256


@dataclass(frozen=True, kw_only=True)
class Perplexity(TaskData):
    """How well held-out texts are predicted: perplexity a token, and bits a byte, which is the same for any tokenizer.

    A text longer than `max_length` tokens is cut into windows of that length, each predicted from its own beginning.
    """

    column: str = "text"
    max_length: int = 1024


@dataclass(frozen=True, kw_only=True)
class MtBench(TaskData):
    """Questions of two turns whose answers the `judge` grades from 1 to 10 (MT-Bench, arXiv 2306.05685).

    With `against`, each other model is also compared with that one, question by question in both orders.
    """

    against: str | None = None
    max_tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class AlpacaEval(TaskData):
    """Instructions whose answers the `judge` compares with a reference's, in both orders (AlpacaEval 2).

    A row holds `instruction` and the reference's `output`. The win rate is given as it is, and with the effect of
    length taken out (arXiv 2404.04475).
    """

    max_tokens: int = 2048


@dataclass(frozen=True, kw_only=True)
class TaskGroup(EvalTask):
    """The tasks of one table of the reference's cards; `paths` says where a member reads, by its name."""

    paths: dict[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Another model to measure beside the recipe's own: a hub id or a folder."""

    name: str
    path: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured of which checkpoints.

    `models` names some of `base`, `sft`, `instruct`, `variants` (all quantised ones) and single variants; where it is
    empty, all that the recipe makes are measured. Answers in `float32` do not depend on the batch but for near ties, so
    that is the default. Intervals are at the 95% level, by `resamples` draws of the bootstrap.
    """

    tasks: list[Any] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = 8
    resamples: int = 1000


TASKS: dict[str, type[EvalTask]] = {
    "ifeval": Ifeval,
    "arc-challenge": MultipleChoice,
    "hellaswag": MultipleChoice,
    "mmlu": MultipleChoice,
    "truthfulqa": MultipleChoice,
    "flores": Translation,
    "perplexity": Perplexity,
    "mt-bench": MtBench,
    "alpaca-eval-2": AlpacaEval,
    "base-en-fi": TaskGroup,
    "translation": TaskGroup,
    "instruct": TaskGroup,
}
