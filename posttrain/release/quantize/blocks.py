"""Documents as rows of token ids, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posttrain.chat import Template, TemplateRefusal, render
from posttrain.errors import UserError
from posttrain.release.quantize.text import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEAST = 16  # tokens of a row; GPTQModel leaves out rows of fewer than 10


@dataclass(frozen=True)
class Blocks:
    """Rows of token ids, all of one length, and the documents they are made of.

    Attributes:
        name: What cards call the set.
        rows: Token ids. If there is less than one row of text, the one row is shorter.
        length: Tokens of a row as the recipe asks for them.
        ids: Hashes of the documents used, in order.
        texts: Their text as it was tokenised, in order.
        marks: By which another set's documents are told to be the same.
        refused: How many documents the chat template refused.
    """

    name: str
    rows: list[list[int]]
    length: int
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    marks: frozenset[str]
    refused: int

    def identity(self) -> dict[str, Any]:
        """Return what identifies the set: SHA-256 of ids, texts and tokens, and the sizes."""
        return {
            "name": self.name,
            "ids_sha256": _digest(self.ids),
            "text_sha256": _digest(self.texts),
            "tokens_sha256": _digest([" ".join(map(str, row)) for row in self.rows]),
            "documents": len(self.ids),
            "samples": len(self.rows),
            "length": self.length,
            "tokens": sum(map(len, self.rows)),
        }


def _digest(parts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(f"{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def cut(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    template: Template | None,
    *,
    name: str,
    samples: int,
    length: int,
    system: str | None,
) -> Blocks:
    """Lay documents end to end and cut them into at most `samples` rows of `length` tokens.

    Conversations are rendered with the template and tokenised as they stand; without one their turns become
    paragraphs. Plain documents begin with the tokenizer's BOS, if it has one, and end with its end of text. What is
    left at the end and fills no row is not used.

    Raises:
        UserError: There are fewer than `LEAST` tokens.
    """
    from posttrain.train.text import Ends, encode, own_backend

    ends, backend = Ends.of(tokenizer), own_backend(tokenizer)
    stream: list[int] = []
    used: list[tuple[Document, str]] = []
    refused = 0
    for document in documents:
        if len(stream) >= samples * length:
            break
        rendered = None
        if document.messages and template is not None:
            rendered = _rendered(document, template, tokenizer, system)
            if rendered is None:
                refused += 1
                continue
        text = rendered if rendered is not None else _plain(document)
        if rendered is not None:
            stream += tokenizer(rendered, add_special_tokens=False)["input_ids"]
        else:
            stream += next(iter(encode([text], backend, ends)))
        used.append((document, text))
    if len(stream) < LEAST:
        raise UserError(
            f"{name}: its {len(documents)} documents make {len(stream)} tokens, and at least {LEAST} are needed"
            + (f"; the chat template refused {refused}" if refused else "")
            + "; give more text"
        )
    whole = min(samples, len(stream) // length)
    rows = [stream[at * length : (at + 1) * length] for at in range(whole)] or [stream]
    return Blocks(
        name=name,
        rows=rows,
        length=length,
        ids=tuple(document.id for document, _ in used),
        texts=tuple(text for _, text in used),
        marks=frozenset(mark for document, _ in used for mark in document.marks),
        refused=refused,
    )


def _plain(document: Document) -> str:
    return document.text or "\n\n".join(turn["content"] for turn in document.messages)


def _rendered(
    document: Document, template: Template, tokenizer: PreTrainedTokenizerBase, system: str | None
) -> str | None:
    turns = list(document.messages)
    if system is not None and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    try:
        return render(template.text, turns, tokenizer.special_tokens_map).text
    except TemplateRefusal:
        return None
