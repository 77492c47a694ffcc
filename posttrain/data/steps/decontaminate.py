"""Rows that contain a prompt of an evaluation set, found by the words and word n-grams they share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.duplicates import words
from posttrain.data.languages import language_code
from posttrain.data.read import read_records
from posttrain.data.rows import UNKNOWN_LANGUAGE, Row
from posttrain.data.steps.base import Rejected, Result, user_texts
from posttrain.errors import UserError
from posttrain.recipe.schema_data import Decontamination, EvalSet

COLUMNS = ("prompt", "turns", "instruction", "question", "messages", "text")
IDS = ("key", "question_id", "id", "prompt_id", "uuid")
SHOWN = 80  # characters of an item in a reason
# An item of fewer than n words is looked for inside longer turns from this length on, blanks included. Below it,
# everyday phrases (`i do not know`, `what should i do`) turn up in rows that have nothing to do with an evaluation.
EMBEDDED_CHARS = 20


@dataclass(frozen=True)
class EvalItem:
    """One prompt of an evaluation: the label of its set, its id there, its language (`und`: unknown), its turns."""

    label: str
    id: str
    language: str
    texts: tuple[str, ...]


def load_eval_items(options: Decontamination) -> list[EvalItem]:
    """Read the prompts of every set under `against`.

    Of messages, the user turns are taken. A set's items are numbered from 1 where they have no id of their own.

    Raises:
        UserError: Sets that cannot be read, are empty, lack their column or hold something else than text in it; all
            sets are looked at first.
    """
    items: list[EvalItem] = []
    problems: list[str] = []
    for number, entry in enumerate(options.against):
        try:
            items += _items(entry)
        except UserError as error:
            problems += [f"data.decontaminate.against.{number}.{problem}" for problem in error.problems]
    if problems:
        raise UserError(problems)
    return items


def _items(entry: EvalSet) -> list[EvalItem]:
    """Read one set; the problems raised begin with the key at fault."""
    language = language_code(entry.language)
    if entry.language is not None and language == UNKNOWN_LANGUAGE:
        raise UserError(f"language: {entry.language!r} is no language; give an ISO code such as en, fi")
    items = []
    try:
        for number, record in enumerate(read_records(entry), 1):
            name = next((str(record[key]) for key in IDS if record.get(key) is not None), str(number))
            items.append(EvalItem(entry.label, name, language, _texts(record, entry, number)))
    except UserError as error:
        raise UserError([_keyed(problem) for problem in error.problems]) from error
    if not any(words(text) for item in items for text in item.texts):
        raise UserError(f"path: {entry.path} holds no prompt; give the file with the evaluation's prompts")
    return items


def _keyed(problem: str) -> str:
    return problem if problem.startswith("column: ") else f"path: {problem}"


def _texts(record: Mapping[str, Any], entry: EvalSet, number: int) -> tuple[str, ...]:
    column = entry.column or next((name for name in COLUMNS if record.get(name) is not None), None)
    if column is None:
        wanted, found = ", ".join(COLUMNS), ", ".join(record) or "none"
        raise UserError(f"column: item {number} of {entry.path} has none of {wanted}; name one of its columns: {found}")
    if record.get(column) is None:
        found = ", ".join(record) or "none"
        raise UserError(f"column: item {number} of {entry.path} has no {column!r}; its columns are {found}")
    value = record[column]
    turns = value if isinstance(value, list) else [value]
    if turns and all(isinstance(turn, dict) for turn in turns):
        turns = [turn.get("content") for turn in turns if turn.get("role") == "user"]
    if not turns or not all(isinstance(turn, str) for turn in turns):
        raise UserError(
            f"column: {column!r} of item {number} of {entry.path} holds no text, list of texts, or messages with a "
            "user turn; name another column"
        )
    return tuple(turns)


@dataclass(frozen=True)
class _Turn:
    """A turn of an evaluation prompt as it is looked for: by `total` n-grams, or whole where that is None."""

    reason: str
    n: int
    total: int | None
    any_language: bool


class Decontaminate:
    """Rejects a row whose user turns contain a turn of an evaluation prompt.

    Words are those of `posttrain.data.duplicates.words`. A turn of n words or more is contained where `threshold` of
    its different word n-grams occur in the row's user turns, taken together; n-grams do not reach across turns. A
    shorter one is contained where a user turn has exactly its words or, if it has `EMBEDDED_CHARS` characters or more,
    has them in a row. n is that of the item's language; an item whose set states no language is looked for with the
    n of the row's language. Of several items the one with the largest share is named, then the first.

    Args:
        options: n by language and the threshold.
        items: From `load_eval_items`.
    """

    name = "decontaminate"

    def __init__(self, options: Decontamination, items: Sequence[EvalItem]) -> None:
        self._ngram: dict[str, int] = {
            name if name == "default" else language_code(name): n for name, n in options.ngram.items()
        }
        self._threshold = options.threshold
        self._turns: list[_Turn] = []
        self._grams: dict[int, dict[str, list[int]]] = {}
        self._whole: dict[str, list[int]] = defaultdict(list)
        self._by_anchor: dict[str, list[tuple[str, list[int]]]] = defaultdict(list)
        for item in items:
            self._add(item)
        self._anchor()
        self._probe()

    def _n_for(self, language: str) -> int:
        return self._ngram.get(language, self._ngram["default"])

    def _add(self, item: EvalItem) -> None:
        any_language = item.language == UNKNOWN_LANGUAGE
        lengths = sorted(set(self._ngram.values())) if any_language else [self._n_for(item.language)]
        for position, text in enumerate(item.texts, 1):
            name = f"{item.id} turn {position}" if len(item.texts) > 1 else item.id
            reason = f"contaminated: {item.label} {name}: {' '.join(text.split())[:SHOWN]}"
            own = words(text)
            for n in lengths if own else []:
                index = len(self._turns)
                if len(own) < n:
                    self._turns.append(_Turn(reason, n, None, any_language))
                    self._whole[" ".join(own)].append(index)
                    continue
                grams = set(_ngrams(own, n))
                self._turns.append(_Turn(reason, n, len(grams), any_language))
                for gram in grams:
                    self._grams.setdefault(n, {}).setdefault(gram, []).append(index)

    def _anchor(self) -> None:
        """File each short turn under its rarest word: only a row with that word can contain it."""
        counts = Counter(word for text in self._whole for word in text.split())
        for text, indices in self._whole.items():
            if len(text) >= EMBEDDED_CHARS:
                self._by_anchor[min(text.split(), key=lambda word: (counts[word], word))].append((text, indices))
        self._anchors = frozenset(self._by_anchor)
        self._longest = max((len(text.split()) for text in self._whole), default=0)

    def _probe(self) -> None:
        """Choose the shorter n-grams that tell at a fraction of the cost that a row shares no n-gram with any item.

        Every run of n words has an m-gram that begins at a multiple of n - m + 1, so that it is enough to look for
        the items' m-grams at those places.
        """
        least = min(self._grams, default=1)
        self._probe_n = (2 * least + 2) // 3  # shorter ones are in too many rows, longer ones are more to look up
        self._stride = least - self._probe_n + 1
        self._probes = frozenset(
            probe for grams in self._grams.values() for gram in grams for probe in _ngrams(gram.split(), self._probe_n)
        )

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Return each row, or the item that it contains."""
        return [row if (reason := self._find(row)) is None else Rejected(reason) for row in rows]

    def _find(self, row: Row) -> str | None:
        turns = [words(text) for text in user_texts(row)]
        shares: dict[int, float] = dict.fromkeys(self._found_whole(turns), 1.0)
        if any(self._may_share(turn) for turn in turns):
            shares.update(self._shares(turns))
        n = self._n_for(row.language)
        shares = {i: share for i, share in shares.items() if not self._turns[i].any_language or self._turns[i].n == n}
        if not shares:
            return None
        return self._turns[min(shares, key=lambda index: (-shares[index], index))].reason

    def _found_whole(self, turns: Sequence[list[str]]) -> Iterator[int]:
        for turn in turns:
            if len(turn) <= self._longest:
                yield from self._whole.get(" ".join(turn), ())
            if not self._anchors.isdisjoint(turn):
                padded = f" {' '.join(turn)} "
                for anchor in sorted(self._anchors.intersection(turn)):
                    for short, indices in self._by_anchor[anchor]:
                        if f" {short} " in padded:
                            yield from indices

    def _may_share(self, turn: Sequence[str]) -> bool:
        return not self._probes.isdisjoint(_ngrams(turn, self._probe_n, self._stride))

    def _shares(self, turns: Sequence[list[str]]) -> Iterator[tuple[int, float]]:
        """Yield the indexed turns of which enough n-grams occur, each with the share that does."""
        for n, index in self._grams.items():
            shared = index.keys() & {gram for turn in turns for gram in _ngrams(turn, n)}
            counts = Counter(number for gram in shared for number in index[gram])
            for number, count in counts.items():
                share = count / (self._turns[number].total or 1)
                if share >= self._threshold:
                    yield number, share


def _ngrams(text: Sequence[str], n: int, stride: int = 1) -> Iterable[str]:
    """Return the runs of n words that begin at a multiple of `stride`, each as one text."""
    return map(" ".join, zip(*(text[start::stride] for start in range(n)), strict=False))
