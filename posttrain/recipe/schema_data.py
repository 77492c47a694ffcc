"""What a recipe may say about data: the sources, the steps between them and the sets, and the held-out rows.

A step is off where its section is absent or `null`, and on with its defaults where the section is `{}`. Lengths are in
characters unless a key says tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Rows held out, by conversation tree or prompt: a share of them, at most `max_rows` a set."""

    fraction: float = 0.05
    max_rows: int = 2000


@dataclass(frozen=True, kw_only=True)
class LanguageFilter:
    """Identify the language of prompt and answer (heliport), from the first `crop` characters of each.

    A text with fewer than `min_letters` letters, code left out, is taken for what its source says. A row is rejected
    where its prompt is in none of its entry's languages, and with `match_response` where the answer is in another
    language than the prompt; rows in several languages, such as translations, are not compared.
    """

    crop: int = 200
    min_letters: int = 20
    match_response: bool = True


@dataclass(frozen=True, kw_only=True)
class LengthFilter:
    """Least and most characters of all user turns, of all answers, and tokens of the whole conversation.

    Tokens are those of the recipe's tokenizer, of the messages' text without the chat template's own.
    """

    min_prompt: int | None = None
    max_prompt: int | None = None
    min_response: int | None = None
    max_response: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class RepetitionFilter:
    """Reject an answer that repeats itself.

    `max_share` bounds the share of its word n-grams of length `ngram` that have occurred before in it; answers of
    fewer than `min_words` words are let through.
    """

    ngram: int = 8
    max_share: float = 0.3
    min_words: int = 50


@dataclass(frozen=True, kw_only=True)
class RefusalFilter:
    """Reject an answer that opens with a refusal; `phrases` are added to the built-in English and Finnish ones."""

    phrases: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class VendorFilter:
    """Reject an answer that names the maker or the name of another model; `names` are added to the built-in ones."""

    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class MarkupFilter:
    """Reject a row whose text holds a chat template's own tokens; `special_tokens` are added to the known ones."""

    special_tokens: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TruncationFilter:
    """Reject an answer that was cut off: the source says so, a code fence is left open, or it stops in mid-sentence.

    The last is judged only of answers of `min_chars` characters and more.
    """

    min_chars: int = 200


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What each row is judged by on its own, in this order."""

    markup: MarkupFilter | None = None
    truncation: TruncationFilter | None = None
    length: LengthFilter | None = None
    language: LanguageFilter | None = None
    repetition: RepetitionFilter | None = None
    refusal: RefusalFilter | None = None
    vendor: VendorFilter | None = None


@dataclass(frozen=True, kw_only=True)
class Pii:
    """Replace personal data in every message by a mark of its kind, such as `[EMAIL]`.

    `code` masks inside fenced code blocks too.
    """

    kinds: list[Literal["email", "phone", "fi_personal_id", "iban"]] = field(
        default_factory=lambda: ["email", "phone", "fi_personal_id", "iban"]
    )
    code: bool = False


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """Keep the first of several rows whose prompts are nearly the same, by MinHash over their word n-grams.

    A row goes where an earlier row that stays has an estimated Jaccard similarity of `threshold` or more.
    """

    threshold: float = 0.7
    permutations: int = 128
    ngram: int = 3
    sets: list[Literal["sft", "preference"]] = field(default_factory=lambda: ["sft"])


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates:
    """Keep the first of several rows whose first prompts mean nearly the same, by the distance of their embeddings.

    `model` is a sentence-transformers model in safetensors, a hub id or a folder; the default knows English alone. A
    row goes where an earlier row that stays is at a squared Euclidean distance of `threshold` or less, which is
    2 - 2 cos: 0.05 is what Magpie's releases use. The rows of the entries named in `sources` are compared with each
    other, of all where the list is empty.
    """

    model: str = "sentence-transformers/all-mpnet-base-v2"
    revision: str | None = None
    threshold: float = 0.05
    sets: list[Literal["sft", "preference"]] = field(default_factory=lambda: ["sft"])
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Which rows count as the same: those with equal text but for case, blanks and Unicode form, if `exact`.

    Rows of equal content always do.
    """

    exact: bool = True
    near: NearDuplicates | None = None
    semantic: SemanticDuplicates | None = None


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Prompts of an evaluation that no row may contain: a file, a folder or a hub id.

    `column` holds a text, a list of texts (the turns), or messages; by default the first there is of `prompt`,
    `turns`, `instruction`, `question`, `messages`, `text`.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str = "test"
    column: str | None = None
    language: str | None = None

    @property
    def label(self) -> str:
        """What reports call it: never a path, which another machine does not have."""
        return self.name or PurePath(self.path).name


@dataclass(frozen=True, kw_only=True)
class Decontamination:
    """Reject a row whose user turns contain a prompt of an evaluation.

    A row contains a prompt where `threshold` of the prompt's word n-grams occur in it. `ngram` is n by language, with
    `default` for the others; Finnish words carry more than English ones, so its n is smaller. A prompt of fewer than n
    words is compared whole.
    """

    against: list[EvalSet] = field(default_factory=list)
    ngram: dict[str, Any] = field(default_factory=lambda: {"default": 8, "fi": 6})
    threshold: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Data:
    """The SFT mixture and the preference set; each entry names a source (`posttrain.data.sources`).

    `num_proc` processes share the work, by default one a core; the output is the same for any number.
    """

    sft: list[Any] = field(default_factory=list)
    preference: list[Any] = field(default_factory=list)
    filters: Filters = field(default_factory=Filters)
    pii: Pii | None = None
    duplicates: Duplicates = field(default_factory=Duplicates)
    decontaminate: Decontamination | None = None
    validation: Validation = field(default_factory=Validation)
    num_proc: int | None = None
