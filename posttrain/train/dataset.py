"""From rows to what a trainer reads: token ids with their labels, or pairs of token ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from posttrain.chat import Template

IGNORED = -100  # the label that a loss leaves out
_BATCH = 1000
TOO_LONG = "longer than max_length"
NOTHING_LEFT = "no trained token within max_length"


@dataclass
class Tally:
    """What encoding a set of rows gave: rows in, rows out, and each refusal with its row and reason."""

    rows: int = 0
    kept: int = 0
    truncated: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)

    def refuse(self, row: dict[str, Any], reason: str) -> None:
        """Set a row aside."""
        self.refused.append({"id": row["id"], "source": row["source"], "step": "tokenize", "reason": reason})

    def reasons(self) -> Counter[str]:
        """Count the refusals by reason, details left out."""
        return Counter(entry["reason"].partition(":")[0] for entry in self.refused)

    def metrics(self, held_out: Tally) -> dict[str, Any]:
        """Return the counts of a training set for the manifest, with the refusals of its held-out set too."""
        counts = {"rows": self.kept, "tokens": self.tokens, "trained_tokens": self.trained_tokens}
        return counts | {"refused": dict(self.reasons() + held_out.reasons())}

    def describe(self) -> str:
        """Say in a line what became of the rows."""
        text = f"{self.kept:,} of {self.rows:,} rows, {self.tokens:,} tokens, {self.trained_tokens:,} trained"
        if self.truncated:
            text += f", {self.truncated:,} rows cut to max_length"
        for reason, count in self.reasons().most_common():
            text += f"; {count:,} refused: {reason}"
        return text


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=_BATCH):
            yield batch.to_pylist()


def encode_sft(
    path: Path, tokenizer: PreTrainedTokenizerBase, template: Template, *, loss_on: str, max_length: int
) -> tuple[Dataset, Tally]:
    """Encode SFT rows as `input_ids` and `labels`.

    A row longer than `max_length` is cut at its end; one that then has no trained token is refused. The first
    token of a row never has a loss, packed or not: nothing comes before it to predict it from.

    Args:
        path: A parquet file of SFT rows.

    Returns:
        The rows in file order, and the tally.
    """
    from datasets import Dataset

    from posttrain.chat import Refusal, encode_chats

    tally = Tally()
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for rows in _batches(path):
        encoded = encode_chats(tokenizer, template, [row["messages"] for row in rows], loss_on)
        for row, result in zip(rows, encoded, strict=True):
            tally.rows += 1
            if isinstance(result, Refusal):
                tally.refuse(row, result.reason)
                continue
            ids = result.input_ids[:max_length]
            mask = result.mask[:max_length]
            labels = [IGNORED] + [
                token if trained else IGNORED for token, trained in zip(ids[1:], mask[1:], strict=True)
            ]
            trained_tokens = sum(label != IGNORED for label in labels)
            if not trained_tokens:
                tally.refuse(row, NOTHING_LEFT)
                continue
            tally.kept += 1
            tally.truncated += len(ids) < len(result.input_ids)
            tally.tokens += len(ids)
            tally.trained_tokens += trained_tokens
            columns["input_ids"].append(ids)
            columns["labels"].append(labels)
    return Dataset.from_dict(columns), tally


def encode_preference(
    path: Path, tokenizer: PreTrainedTokenizerBase, template: Template, *, max_length: int
) -> tuple[Dataset, Tally]:
    """Encode preference rows as `prompt_ids`, `chosen_ids` and `rejected_ids`.

    A pair of which either response, behind the prompt, is longer than `max_length` is refused: cutting one
    response and not the other would compare a whole answer with a part.
    """
    from datasets import Dataset

    from posttrain.chat import Refusal, encode_preferences

    tally = Tally()
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    for rows in _batches(path):
        for row, result in zip(rows, encode_preferences(tokenizer, template, rows), strict=True):
            tally.rows += 1
            if isinstance(result, Refusal):
                tally.refuse(row, result.reason)
                continue
            prompt, chosen, rejected = result.prompt_ids, result.chosen_ids, result.rejected_ids
            if len(prompt) + max(len(chosen), len(rejected)) > max_length:
                tally.refuse(row, TOO_LONG)
                continue
            tally.kept += 1
            tally.tokens += 2 * len(prompt) + len(chosen) + len(rejected)
            tally.trained_tokens += len(chosen) + len(rejected)
            columns["prompt_ids"].append(prompt)
            columns["chosen_ids"].append(chosen)
            columns["rejected_ids"].append(rejected)
    return Dataset.from_dict(columns), tally


def require_rows(tally: Tally, what: str, path: Path) -> None:
    """Stop when no row of a training set is left.

    Raises:
        UserError: It counts the reasons for which the rows were refused.
    """
    if not tally.kept:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in tally.reasons().most_common())
        section = path.parent.name
        advice = f"raise {'sft' if section == 'sft' else 'dpo'}.max_length, or give other rows in data.{section}"
        raise UserError(f"no {what} row of {path.name} can be trained on: {reasons or 'the set is empty'}; {advice}")


def write_refused(tallies: list[Tally], path: Path) -> None:
    """Write the rows that encoding refused, with their reasons."""
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, pyarrow.string()) for name in ("id", "source", "step", "reason")])
    rows = [entry for tally in tallies for entry in tally.refused]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
