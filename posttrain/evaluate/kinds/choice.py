"""Multiple choice by the likelihood of each continuation: prompts and likelihoods by lm-eval, task files of our own."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.assets import asset_folder
from posttrain.errors import UserError
from posttrain.evaluate.answers import Answer, sha256
from posttrain.evaluate.decode import chat_text
from posttrain.evaluate.harness import Request, lm_eval_task, numbers_by_subject, quiet, requests_of
from posttrain.evaluate.kept import Kept, key_of
from posttrain.evaluate.kinds.base import About, How, Sample, Source, few
from posttrain.evaluate.metrics import PERCENT, Measured, Metric, shares
from posttrain.evaluate.rows import read_rows
from posttrain.recipe.schema_evaluate import MultipleChoice

if TYPE_CHECKING:
    from posttrain.evaluate.checkpoints import Loaded


def task_file(task: str, language: str) -> Path:
    """Return the package's lm-eval task file of a task in a language."""
    return asset_folder("data") / "eval" / f"{task}-{language}.yaml"


@cache
def read_task_file(path: Path) -> dict[str, Any]:
    """Return a task file's keys."""
    import yaml

    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@dataclass(frozen=True)
class ChoiceTask:
    """Questions whose answers a model chooses by log-likelihood.

    `acc` takes the likeliest continuation, `acc_norm` the likeliest a character, and `mc2` gives the share of the
    probability of all continuations that the true ones have.
    """

    name: str
    entry: MultipleChoice
    seen: list[dict[str, Any]] = field(default_factory=list, compare=False)

    @property
    def _file(self) -> dict[str, Any]:
        return read_task_file(task_file(self.entry.task, self.entry.language))

    @property
    def _shots(self) -> int:
        given = self.entry.num_fewshot
        return int(self._file["num_fewshot"]) if given is None else given

    @property
    def about(self) -> About:
        """What it is; the version names the task file's own and the hash of its text."""
        metadata = self._file["metadata"]
        path = task_file(self.entry.task, self.entry.language)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        primary = metadata["primary"]
        names = [primary, *(item["metric"] for item in self._file["metric_list"] if item["metric"] != primary)]
        if primary == "mc2":
            names = ["mc2"]
        return About(
            kind="choice",
            title=metadata["title"],
            language=self.entry.language,
            version=f"{metadata['version']}",
            num_fewshot=self._shots,
            metrics=tuple(Metric(name, PERCENT, primary=name == primary) for name in names),
            options={"metrics": names, "task_sha256": digest, "chat": self.entry.chat},
        )

    def _source(self, path: str | None, split: str) -> Source:
        entry, file = self.entry, self._file
        if path is not None:
            return Source(path, entry.revision, entry.config, entry.split or split)
        config = entry.config or file.get("dataset_name")
        return Source(file["dataset_path"], entry.revision, config, entry.split or split)

    @cached_property
    def _rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The questions, and the rows that examples come from."""
        entry, file = self.entry, self._file
        patterns = file["metadata"].get("data_files") if entry.path is None and entry.config is None else None
        test, shots = file["test_split"], file.get("fewshot_split", "train")
        questions = read_rows(self.name, self._source(entry.path, test), data_files=patterns, seen=self.seen)
        if not self._shots:
            return questions, []
        if shots == test or (entry.fewshot_path is not None and entry.fewshot_path == entry.path):
            return questions, questions
        if entry.fewshot_path is not None:
            return questions, read_rows(self.name, Source(entry.fewshot_path, None, None, shots), seen=self.seen)
        if entry.path is not None and Path(entry.path).expanduser().is_file():
            raise UserError(
                f"eval: {self.name}: {entry.path} is one file, and the {self._shots} examples come from elsewhere; "
                "give fewshot_path, or num_fewshot: 0"
            )
        source = self._source(entry.path, shots)
        return questions, read_rows(
            self.name, Source(source.path, source.revision, source.config, shots), data_files=patterns, seen=self.seen
        )

    @cached_property
    def _requests(self) -> list[Request]:
        """Every sample with its prompt and its continuations, as lm-eval makes them."""
        questions, examples = self._rows
        same = examples is questions
        asked = few(questions, self.entry.max_samples)
        examples_of = numbers_by_subject(examples, self._file)
        found: dict[int, Request] = {}
        for subject, numbers in numbers_by_subject(asked, self._file).items():
            of_subject = [examples[number] for number in examples_of.get(subject, [])]
            if self._shots > len(of_subject) - int(same):
                about = f" about {subject}" if subject else ""
                raise UserError(
                    f"eval: {self.name}: there are {len(of_subject)} rows{about} to take {self._shots} examples from; "
                    "give more, or a smaller num_fewshot"
                )
            rows = of_subject if same else [asked[number] for number in numbers]
            task = lm_eval_task(self.name, self._file, rows, of_subject, self._shots, same)
            made = requests_of(self.name, task, len(numbers), self._file, self._shots)
            found |= dict(zip(numbers, made, strict=True))
        return [found[number] for number in range(len(asked))]

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The questions with their examples."""
        return [
            Sample(str(number), request.context, request.item) for number, request in enumerate(self._requests, start=1)
        ]

    def answer(self, loaded: Loaded, how: How) -> list[Answer]:
        """Return the log-likelihood of every continuation, in nats."""
        likelihoods, cut = self._likelihoods(loaded, how)
        scorer, options = ChoiceScorer(), self.about.options
        answers = []
        for sample, found, lost in zip(self.samples, likelihoods, cut, strict=True):
            note = f"the prompt was cut to fit the model: by {lost} tokens" if lost else None
            answer = Answer(
                id=sample.id, prompt_sha256=sha256(sample.prompt), response=found, item=sample.item, note=note
            )
            answer.scores.update(scorer.score(answer, options))
            answers.append(answer)
        return answers

    def _likelihoods(self, loaded: Loaded, how: How) -> tuple[list[list[float]], list[int]]:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        with quiet():
            model = HFLM(pretrained=loaded.model, tokenizer=loaded.encoding.tokenizer, batch_size=how.batch_size)
        found: list[list[float]] = []
        cut: list[int] = []
        kept = Kept(how.store / f"{self.name}.jsonl")
        step = max(how.batch_size, 32)  # samples at a time, so that there is progress to show, and to keep
        for start in range(0, len(self._requests), step):
            part = [self._asked(loaded, request) for request in self._requests[start : start + step]]
            key = key_of(part)
            likelihoods = kept.get(key)
            if likelihoods is None:
                instances = [
                    Instance(
                        request_type="loglikelihood",
                        doc={},
                        arguments=(context, choice),
                        idx=index,
                        metadata=(self.name, number, 1),
                    )
                    for number, (context, choices) in enumerate(part, start=start)
                    for index, choice in enumerate(choices)
                ]
                with quiet():
                    results = iter(model.loglikelihood(instances, disable_tqdm=True))
                likelihoods = kept.add(key, [[float(next(results)[0]) for _ in choices] for _, choices in part])
            found += likelihoods
            for context, choices in part:
                longest = max(len(model.tok_encode(context + choice)) for choice in choices)
                cut.append(max(0, longest - 1 - model.max_length))
            how.advance(len(part))
        return found, cut

    def _asked(self, loaded: Loaded, request: Request) -> tuple[str, list[str]]:
        """Return what a model is asked: the prompt as it is, or as a user's turn, and the continuations."""
        if not (self.entry.chat and loaded.chats):
            return request.context, request.choices
        context = chat_text(loaded, [{"role": "user", "content": request.context}])
        return context, [choice.lstrip() for choice in request.choices]


class ChoiceScorer:
    """Scores log-likelihoods."""

    def score(self, answer: Answer, options: dict[str, Any]) -> dict[str, Any]:
        """Return each metric of one question, from 0 to 1."""
        likelihoods = [float(value) for value in answer.response]
        item = answer.item
        if "labels" in item:
            most = max(likelihoods)
            masses = [math.exp(value - most) for value in likelihoods]
            true = sum(mass for mass, label in zip(masses, item["labels"], strict=True) if label)
            return {"mc2": true / sum(masses)}
        normed = [value / max(1, length) for value, length in zip(likelihoods, item["lengths"], strict=True)]
        scores = {"acc": _first_best(likelihoods), "acc_norm": _first_best(normed)}
        return {name: float(scores[name] == item["gold"]) for name in options["metrics"]}

    def measure(self, answers: Sequence[Answer], options: dict[str, Any]) -> list[Measured]:
        """Return each metric's mean, in percent."""
        primary = options["metrics"][0]
        metrics = [Metric(name, PERCENT, primary=name == primary) for name in options["metrics"]]
        return shares(metrics, [answer.scores for answer in answers])


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: (values[index], -index))
