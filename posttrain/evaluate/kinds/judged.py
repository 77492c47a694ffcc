"""Tasks whose answers a judge scores: the model is asked turn by turn, the judge when all models have answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from posttrain.evaluate.answers import Answer, sha256
from posttrain.evaluate.decode import REFUSED, Decoded, ask
from posttrain.evaluate.judge.questions import Question, alpaca_eval_questions, mt_bench_questions
from posttrain.evaluate.kinds.base import About, How, Sample, Source
from posttrain.evaluate.rows import read_rows
from posttrain.recipe.schema_evaluate import AlpacaEval, MtBench

if TYPE_CHECKING:
    from posttrain.data.rows import Message
    from posttrain.evaluate.checkpoints import Loaded

VERSION = "1"
# The same columns under the names that another copy of MT-Bench on the hub gives them.
_ALIASES = {"prompt_id": "question_id", "prompt": "turns"}


@dataclass(frozen=True)
class JudgedTask:
    """Questions of one turn or more, answered greedily through the chat template."""

    name: str
    entry: MtBench | AlpacaEval
    seen: list[dict[str, Any]] = field(default_factory=list, compare=False)

    @property
    def about(self) -> About:
        """What it is, but for what the judge reports, which `posttrain.evaluate.judged` adds."""
        mt_bench = isinstance(self.entry, MtBench)
        return About(
            kind="judged",
            title="MT-Bench" if mt_bench else "AlpacaEval 2",
            language=self.entry.language,
            version=VERSION,
            num_fewshot=0,
            metrics=(),
            options={"max_tokens": self.entry.max_tokens},
        )

    @cached_property
    def questions(self) -> list[Question]:
        """The questions, with their references."""
        entry = self.entry
        assert entry.path is not None, "a rule of the recipe asks for it"
        source = Source(entry.path, entry.revision, entry.config, entry.split or "train")
        rows = read_rows(self.name, source, most=entry.max_samples, seen=self.seen)
        if isinstance(entry, AlpacaEval):
            return alpaca_eval_questions(rows, self.name)
        return mt_bench_questions([_renamed(row) for row in rows], self.name)

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The questions, of which `item` holds all that the judge is shown."""
        return [Sample(question.id, "\n\n".join(question.turns), asdict(question)) for question in self.questions]

    def answer(self, loaded: Loaded, how: How) -> list[Answer]:
        """Return a model's answers to every turn; a turn after one that could not be asked is not asked."""
        talks: list[list[Message]] = [[] for _ in self.questions]
        given: list[list[tuple[str, Decoded]]] = [[] for _ in self.questions]
        for turn in range(max(len(question.turns) for question in self.questions)):
            asked = [
                number
                for number, question in enumerate(self.questions)
                if turn < len(question.turns) and not any(each.finish_reason == REFUSED for _, each in given[number])
            ]
            for number in asked:
                talks[number].append({"role": "user", "content": self.questions[number].turns[turn]})
            answers = ask(
                loaded,
                [talks[number] for number in asked],
                max_tokens=self.entry.max_tokens,
                batch_size=how.batch_size,
                store=how.store / f"{self.name}-{turn + 1}.jsonl",
                advance=how.advance if turn == 0 else None,
            )
            for number, (text, decoded) in zip(asked, answers, strict=True):
                given[number].append((text, decoded))
                talks[number].append({"role": "assistant", "content": decoded.text})
        return [
            Answer(
                id=sample.id,
                prompt_sha256=sha256("\0".join(text for text, _ in turns)),
                response=[decoded.text for _, decoded in turns],
                finish_reason=[decoded.finish_reason for _, decoded in turns],
                item=sample.item,
                note=next((decoded.note for _, decoded in turns if decoded.note is not None), None),
            )
            for sample, turns in zip(self.samples, given, strict=True)
        ]


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {_ALIASES.get(key, key) if _ALIASES.get(key) not in row else key: value for key, value in row.items()}


def for_judge(answers: Sequence[Answer]) -> dict[str, list[str | None]]:
    """Return a model's answers by question and turn, None for those that it could not be asked for."""
    found: dict[str, list[str | None]] = {}
    for answer in answers:
        turns: list[str | None] = [
            None if reason == REFUSED else text
            for text, reason in zip(answer.response, answer.finish_reason, strict=True)
        ]
        found[answer.id] = turns + [None] * (len(answer.item["turns"]) - len(turns))
    return found
