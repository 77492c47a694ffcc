"""Translation after a few examples, by BLEU and chrF (sacrebleu), of sentences in the manner of FLORES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posttrain.assets import is_hub_id, locate
from posttrain.errors import UserError
from posttrain.evaluate.answers import Answer, sha256
from posttrain.evaluate.bootstrap import Array
from posttrain.evaluate.decode import decode, prompt_of
from posttrain.evaluate.kinds.base import About, How, Sample, Source
from posttrain.evaluate.metrics import Measured, Metric
from posttrain.evaluate.rows import read_rows
from posttrain.recipe.schema_evaluate import Translation

if TYPE_CHECKING:
    from posttrain.evaluate.checkpoints import Loaded

VERSION = "1"
FLORES = {"en": "eng_Latn", "fi": "fin_Latn"}
NAMES = {"en": "English", "fi": "Finnish"}
SPM = "flores200"  # sacrebleu's name for the tokenizer of spBLEU, which it would download
_EXAMPLES_SPLIT = "dev"


@dataclass(frozen=True)
class TranslationTask:
    """Sentences of one language after `num_fewshot` pairs, each pair two lines; the answer is the rest of the line."""

    name: str
    entry: Translation
    seen: list[dict[str, Any]] = field(default_factory=list, compare=False)

    @property
    def about(self) -> About:
        """What it is. Without the tokenizer of spBLEU at hand BLEU is of tokenizer 13a alone."""
        entry = self.entry
        tokenizers = [SPM, "13a"] if has_spm() else ["13a"]
        return About(
            kind="translation",
            title=f"{NAMES[entry.source]} to {NAMES[entry.target]}",
            language=f"{entry.source}-{entry.target}",
            version=VERSION,
            num_fewshot=entry.num_fewshot,
            metrics=metrics(tokenizers),
            options={"tokenizers": tokenizers},
        )

    @cached_property
    def _pairs(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The examples, and the sentences to translate."""
        entry, shots = self.entry, self.entry.num_fewshot
        most = entry.max_samples
        if entry.fewshot_path is not None:
            examples = self._read(entry.fewshot_path, entry.split, shots)
        elif is_hub_id(entry.path):
            examples = self._read(entry.path, _EXAMPLES_SPLIT, shots)
        else:
            rows = self._read(entry.path, entry.split, None if most is None else most + shots)
            examples, rows = rows[:shots], rows[shots:]
            if not rows:
                raise UserError(f"eval: {self.name}: {entry.path} has no lines after its {shots} examples; give more")
            return examples, rows
        if len(examples) < shots:
            raise UserError(f"eval: {self.name}: there are {len(examples)} examples, and num_fewshot is {shots}")
        return examples, self._read(entry.path, entry.split, most)

    def _read(self, path: str, split: str, most: int | None) -> list[tuple[str, str]]:
        entry = self.entry
        if is_hub_id(path):
            sides = []
            for language in (entry.source, entry.target):
                source = Source(path, entry.revision, FLORES[language], split)
                sides.append(read_rows(self.name, source, columns=("text",), most=most, seen=self.seen))
            return [(_line(one["text"]), _line(other["text"])) for one, other in zip(*sides, strict=True)]
        aligned = aligned_files(path, entry.source, entry.target)
        if aligned is not None:
            sides_of_lines = [file.read_text(encoding="utf-8-sig").split("\n") for file in aligned]
            lines = [[_line(line) for line in side[: -1 if side[-1] == "" else None]] for side in sides_of_lines]
            if len(lines[0]) != len(lines[1]):
                raise UserError(f"eval: {self.name}: {aligned[0]} and {aligned[1]} have different numbers of lines")
            return list(zip(*lines, strict=True))[:most]
        rows = read_rows(self.name, Source(path, entry.revision, None, split), most=most, seen=self.seen)
        return [
            (self._side(row, entry.source, number, path), self._side(row, entry.target, number, path))
            for number, row in enumerate(rows, start=1)
        ]

    def _side(self, row: dict[str, Any], language: str, number: int, path: str) -> str:
        inside = row.get("translation")
        for place in (row, inside if isinstance(inside, dict) else {}):
            for key in (language, FLORES[language], f"sentence_{FLORES[language]}"):
                if isinstance(place.get(key), str):
                    return _line(place[key])
        raise UserError(
            f"eval: {self.name}: row {number} of {path} has no sentence in {language} under {language}, "
            f"{FLORES[language]} or sentence_{FLORES[language]}"
        )

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The sentences, each after the same examples."""
        examples, pairs = self._pairs
        names = NAMES[self.entry.source], NAMES[self.entry.target]
        shown = "".join(f"{names[0]}: {one}\n{names[1]}: {other}\n\n" for one, other in examples)
        return [
            Sample(str(number), f"{shown}{names[0]}: {one}\n{names[1]}:", {"reference": other})
            for number, (one, other) in enumerate(pairs, start=1)
        ]

    def answer(self, loaded: Loaded, how: How) -> list[Answer]:
        """Return a model's translations. The prompt is plain text for every model, so that figures can be compared."""
        prompts = [
            prompt_of(loaded, sample.prompt, rendered=False, max_tokens=self.entry.max_tokens, stop=("\n",))
            for sample in self.samples
        ]
        store = how.store / f"{self.name}.jsonl"
        decoded = decode(loaded, prompts, batch_size=how.batch_size, store=store, advance=how.advance)
        scorer, options = TranslationScorer(), self.about.options
        found = []
        for sample, answer in zip(self.samples, decoded, strict=True):
            record = Answer(
                id=sample.id,
                prompt_sha256=sha256(sample.prompt),
                response=answer.text.strip(),
                finish_reason=answer.finish_reason,
                item=sample.item,
                note=answer.note,
            )
            record.scores.update(scorer.score(record, options))
            found.append(record)
        return found


def metrics(tokenizers: Sequence[str]) -> tuple[Metric, ...]:
    """Return the metrics; the primary one is spBLEU where its tokenizer is at hand, and else BLEU by tokenizer 13a."""
    bleu = [
        Metric("spbleu" if tokenizer == SPM else "bleu", "BLEU", primary=number == 0)
        for number, tokenizer in enumerate(tokenizers)
    ]
    return (*bleu, Metric("chrf", "chrF"))


def has_spm() -> bool:
    """Say whether the tokenizer of spBLEU is here: nothing is downloaded to score a translation."""
    from importlib.util import find_spec

    if find_spec("sacrebleu") is None or find_spec("sentencepiece") is None:
        return False
    from sacrebleu.utils import SACREBLEU_DIR

    return (Path(SACREBLEU_DIR) / "models" / "flores200sacrebleuspm").is_file()


def aligned_files(path: str, source: str, target: str) -> tuple[Path, Path] | None:
    """Return the two aligned files of a path, `PATH.en` and `PATH.fi`, or None where there are none."""
    root = locate(path)
    files = tuple(Path(f"{root}.{language}").expanduser() for language in (source, target))
    return (files[0], files[1]) if all(file.is_file() for file in files) else None


def _line(text: str) -> str:
    return " ".join(text.split())


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


class TranslationScorer:
    """Scores by the counts that sacrebleu sums over a corpus, a sentence at a time."""

    def score(self, answer: Answer, options: dict[str, Any]) -> dict[str, Any]:
        """Return the counts of each metric.

        Raises:
            UserError: The tokenizer of spBLEU, by which it was scored, is not here.
        """
        pair = [str(answer.response)], [[answer.item["reference"]]]
        if SPM in options["tokenizers"] and not has_spm():
            raise UserError("eval: the sentencepiece model of spBLEU (flores200) is not in sacrebleu's folder")
        scored = {("spbleu" if name == SPM else "bleu"): _counts(_bleu(name), *pair) for name in options["tokenizers"]}
        return {**scored, "chrf": _counts(_chrf(), *pair)}

    def measure(self, answers: Sequence[Answer], options: dict[str, Any]) -> list[Measured]:
        """Return BLEU and chrF of the corpus."""
        found = []
        for metric in metrics(options["tokenizers"]):
            scorer = _chrf() if metric.name == "chrf" else _bleu("13a")  # sums need no tokenizer
            statistics = np.array([answer.scores[metric.name] for answer in answers], dtype=np.float64)
            found.append(Measured(metric, statistics, _corpus(scorer)))
        return found


def _counts(scorer: Any, hypotheses: list[str], references: list[list[str]]) -> list[int]:
    """Return what a sentence adds to the corpus: sacrebleu's own sufficient statistics."""
    (counts,) = scorer._extract_corpus_statistics(hypotheses, references)
    return [int(count) for count in counts]


def _corpus(scorer: Any) -> Any:
    def aggregate(sums: Array) -> Array:
        rows = np.atleast_2d(sums).round().astype(np.int64)
        scores = np.array([scorer._compute_score_from_stats(row.tolist()).score for row in rows], dtype=np.float64)
        return scores if sums.ndim > 1 else scores[0]

    return aggregate
