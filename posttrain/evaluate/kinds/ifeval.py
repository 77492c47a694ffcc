"""IFEval: prompts with instructions that a program verifies, answered through the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from posttrain.evaluate.answers import Answer, sha256
from posttrain.evaluate.decode import ask
from posttrain.evaluate.ifeval import IFEVAL_VERSION, VERIFIERS, check_ready, judge, parse_prompts
from posttrain.evaluate.kinds.base import About, How, Sample, Source
from posttrain.evaluate.metrics import PERCENT, Measured, Metric, ratio
from posttrain.evaluate.rows import read_rows
from posttrain.recipe.schema_evaluate import Ifeval

if TYPE_CHECKING:
    from posttrain.evaluate.checkpoints import Loaded

METRICS = (
    Metric("prompt_level_strict_acc", PERCENT, primary=True),
    Metric("inst_level_strict_acc", PERCENT),
    Metric("prompt_level_loose_acc", PERCENT),
    Metric("inst_level_loose_acc", PERCENT),
)


@dataclass(frozen=True)
class IfevalTask:
    """Instructions followed, strictly and loosely, by the verifiers of `posttrain.evaluate.ifeval`."""

    name: str
    entry: Ifeval
    seen: list[dict[str, Any]] = field(default_factory=list, compare=False)

    @property
    def about(self) -> About:
        """What it is; the version is that of the verifiers, with heliport's where a verifier asks it."""
        from importlib.metadata import version

        options: dict[str, Any] = {"max_tokens": self.entry.max_tokens}
        if self.entry.skip_instructions:
            options["skip_instructions"] = sorted(self.entry.skip_instructions)
        if self._needs_heliport:
            options["heliport"] = version("heliport")
        return About(
            kind="ifeval",
            title="IFEval",
            language=self.entry.language,
            version=IFEVAL_VERSION,
            num_fewshot=0,
            metrics=METRICS,
            options=options,
        )

    @property
    def _needs_heliport(self) -> bool:
        return any(VERIFIERS[name].needs_language for each in self.samples for name in each.item["instruction_id_list"])

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The prompts, of which `item` holds the instructions."""
        entry = self.entry
        assert entry.path is not None, "a rule of the recipe asks for it"
        rows = read_rows(
            self.name, Source(entry.path, entry.revision, entry.config, entry.split or "train"), seen=self.seen
        )
        prompts = [
            prompt
            for prompt in parse_prompts(rows, entry.language, f"eval: {self.name}: {entry.path}")
            if not any(instruction.id in entry.skip_instructions for instruction in prompt.instructions)
        ]
        prompts = prompts if entry.max_samples is None else prompts[: entry.max_samples]
        check_ready(prompts)
        return [
            Sample(
                str(prompt.key),
                prompt.prompt,
                {
                    "prompt": prompt.prompt,
                    "language": prompt.language,
                    "instruction_id_list": [instruction.id for instruction in prompt.instructions],
                    "kwargs": [_plain(instruction.arguments) for instruction in prompt.instructions],
                },
            )
            for prompt in prompts
        ]

    def answer(self, loaded: Loaded, how: How) -> list[Answer]:
        """Return a model's responses, verified."""
        asked = ask(
            loaded,
            [[{"role": "user", "content": sample.prompt}] for sample in self.samples],
            max_tokens=self.entry.max_tokens,
            batch_size=how.batch_size,
            store=how.store / f"{self.name}.jsonl",
            advance=how.advance,
        )
        scorer, answers = IfevalScorer(), []
        for sample, (text, decoded) in zip(self.samples, asked, strict=True):
            answer = Answer(
                id=sample.id,
                prompt_sha256=sha256(text),
                response=decoded.text,
                finish_reason=decoded.finish_reason,
                item=sample.item,
                note=decoded.note,
            )
            answer.scores.update(scorer.score(answer, {}))
            answers.append(answer)
        return answers


def _plain(arguments: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}


class IfevalScorer:
    """Verifies responses."""

    def score(self, answer: Answer, options: dict[str, Any]) -> dict[str, Any]:
        """Return for each instruction whether it is followed, strictly and loosely."""
        item = answer.item
        (prompt,) = parse_prompts([{"key": answer.id, **item}], item["language"], f"sample {answer.id}")
        return judge(prompt, str(answer.response))._asdict()

    def measure(self, answers: Sequence[Answer], options: dict[str, Any]) -> list[Measured]:
        """Return the four accuracies, of prompts and of instructions."""
        found = []
        for metric in METRICS:
            verdicts = [answer.scores["strict" if "strict" in metric.name else "loose"] for answer in answers]
            if metric.name.startswith("prompt"):
                rows = [[float(all(followed)), 1.0] for followed in verdicts]
            else:
                rows = [[float(sum(followed)), float(len(followed))] for followed in verdicts]
            found.append(Measured(metric, np.array(rows, dtype=np.float64), ratio(0, 1, 100.0)))
        return found
