"""The tokenize-cpt stage: texts with shares to blocks of tokens, and the order in which they are trained on.

It reads of each source as much as the run needs and no more, so a source may be larger than any disk; what is read is
kept as tokens, 2 or 4 bytes each. An interrupted stage goes on where the last progress was noted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.parallel import cores
from posttrain.train.batch import steps_asked
from posttrain.train.loop import say
from posttrain.train.mixture import mix, order, settle
from posttrain.train.text import Ends, own_backend, read_documents
from posttrain.train.text_files import open_text
from posttrain.train.text_progress import Counts, Progress, write_aside
from posttrain.train.text_tokens import Encoding, encode_pieces
from posttrain.train.token_blocks import ABOUT, ORDER, VALIDATION, token_dtype, write_order
from posttrain.train.tokenizer import load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from posttrain.recipe.schema import Cpt, TextSource
    from posttrain.stages.context import Context

TOKENIZER = "tokenizer"  # of a new model: its folder
REJECTED = "rejected.parquet"
EVERY = 15.0  # seconds between notes of the progress, and lines that say how far it is
_SAMPLE = 1 << 26  # characters that the tokenizer of a new model is trained on


def tokenize_text(context: Context) -> None:
    """Write the blocks of a mixture.

    Raises:
        UserError: If a source cannot be read, or there is not text enough for one step.
    """
    settings, model = context.recipe.cpt, context.recipe.model
    assert settings is not None
    if model.new is not None:
        sample = _sample(settings, context.seed)
        tokenizer = train_tokenizer(sample, model.new.vocab_size, model.chat_template)
        tokenizer.save_pretrained(context.folder / TOKENIZER)
    else:
        tokenizer = load_tokenizer(model.tokenizer or model.base or "", model)
    dtype = token_dtype(len(tokenizer))
    shares = [source.share or 0.0 for source in settings.text]
    steps = steps_asked(settings)
    asked = None if steps is None else steps * settings.global_batch_size
    needed = None if asked is None else mix(shares, [None] * len(shares), asked).taken
    with Progress(context.folder, context.work, resume=context.resume) as progress:
        for index in range(len(settings.text)):
            most = None if needed is None else needed[index] * settings.max_length
            _read_source(context, progress, tokenizer, index, dtype, most)
        counts, held_out = progress.counts, progress.sizes[VALIDATION]
        write_aside(context.work, context.folder / REJECTED)
    _require_blocks(settings, counts)
    have = [entry.tokens // settings.max_length for entry in counts]
    mixture = settle(
        shares,
        have,
        [source.repeat for source in settings.text],
        asked=asked,
        epochs=settings.num_train_epochs,
        together=settings.global_batch_size,
    )
    if not mixture.blocks:
        raise UserError(
            f"cpt.text: there is not text enough for one step of {settings.global_batch_size} blocks of "
            f"{settings.max_length} tokens; add text, or lower cpt.max_length or cpt.global_batch_size"
        )
    write_order(context.folder / ORDER, order(shares, have, mixture.blocks, context.seed))
    sources = [
        _figures(settings, index, entry, have[index], mixture.taken[index], mixture.blocks)
        for index, entry in enumerate(counts)
    ]
    about: dict[str, Any] = {
        "dtype": dtype,
        "max_length": settings.max_length,
        "blocks": mixture.blocks,
        "tokens": mixture.blocks * settings.max_length,
        "validation_blocks": held_out // (int(dtype[-1]) * settings.max_length),
        "ended_by": None if mixture.ended_by is None else _shown(settings.text[mixture.ended_by]),
        "sources": sources,
    }
    text = json.dumps(about, indent=2, sort_keys=True, ensure_ascii=False)
    (context.folder / ABOUT).write_text(text + "\n", encoding="utf-8")
    for line in describe(about):
        say(context, line)
    read = {"rows": sum(entry.documents for entry in counts), "tokens": sum(entry.tokens for entry in counts)}
    context.report({**about, **read, "trained_tokens": about["tokens"]})


def _sample(settings: Cpt, seed: int) -> Iterator[str]:
    """Yield the beginning of each source, as much of it as its share, for the tokenizer of a new model."""
    for source in settings.text:
        left = int(_SAMPLE * (source.share or 0.0))
        with closing(read_documents(source, seed)) as documents:
            for document in documents:
                if isinstance(document, str):
                    yield document
                    left -= len(document)
                if left <= 0:
                    break


def _read_source(
    context: Context, progress: Progress, tokenizer: PreTrainedTokenizerBase, index: int, dtype: str, most: int | None
) -> None:
    """Read a source up to its end, or up to as many tokens as are needed of it."""
    settings = context.recipe.cpt
    assert settings is not None
    source = settings.text[index]
    name = _shown(source)
    counts = progress.counts_of(index)
    if not counts.done:
        opened = open_text(source, context.seed, counts.revision)
        counts.revision = opened.provenance["revision"]
        context.provenance({"entry": f"cpt.text.{index}", **opened.provenance})
        encoding = Encoding(
            own_backend(tokenizer),
            Ends.of(tokenizer),
            source.column,
            settings.validation_fraction,
            context.seed,
            dtype,
        )
        num_proc = context.recipe.data.num_proc or cores()
        begun, before, noted = time.monotonic(), counts.tokens, time.monotonic()
        pieces: Any = encode_pieces(opened.pieces(counts.place), encoding, num_proc)
        with closing(pieces) as arrived:
            while most is None or counts.tokens < most:
                encoded = next(arrived, None)
                if encoded is None:
                    counts.ended = True
                    break
                progress.add(index, encoded, name)
                if time.monotonic() - noted >= EVERY:
                    noted = time.monotonic()
                    progress.note()
                    rate = (counts.tokens - before) / (noted - begun)
                    part = "" if most is None else f", {counts.tokens / most:.0%}"
                    say(
                        context,
                        f"{name}: {counts.documents:,} documents, {counts.tokens:,} tokens{part}, {rate:,.0f}/s",
                    )
        counts.done = True
        progress.note()
    else:
        context.provenance({"entry": f"cpt.text.{index}", "path": name, "revision": counts.revision})


def _shown(source: TextSource) -> str:
    """Return the path of a source as it is written into what is built: without the folders of this machine."""
    return Path(source.path).name if source.path.startswith(("/", "~")) else source.path


def _require_blocks(settings: Cpt, counts: list[Counts]) -> None:
    problems = [
        f"cpt.text.{index}.path: {settings.text[index].path} holds {entry.tokens:,} tokens, less than one block of "
        f"{settings.max_length}{_because(entry)}; add text to it, leave it out, or lower cpt.max_length"
        for index, entry in enumerate(counts)
        if entry.tokens < settings.max_length
    ]
    if problems:
        raise UserError(problems)


def _because(entry: Counts) -> str:
    if not entry.aside:
        return ""
    return f" ({', '.join(f'{count:,} set aside: {reason}' for reason, count in sorted(entry.aside.items()))})"


def _figures(settings: Cpt, index: int, entry: Counts, blocks: int, taken: int, total: int) -> dict[str, Any]:
    source, whole = settings.text[index], sum(text.share or 0.0 for text in settings.text)
    return {
        "path": _shown(source),
        "share": round((source.share or 0.0) / whole, 6),
        "realised_share": round(taken / total, 6),
        "trained_tokens": taken * settings.max_length,
        "epochs": round(taken / blocks, 4),
        "documents": entry.documents,
        "held_out_documents": entry.held_out_documents,
        "set_aside": dict(sorted(entry.aside.items())),
        "tokens": entry.tokens,
        "blocks": blocks,
        "left_over_tokens": entry.tokens - blocks * settings.max_length,
        "read_to_its_end": entry.ended,
    }


def describe(about: dict[str, Any]) -> list[str]:
    """Say what a mixture is made of: a line in all, a line a source, and one more if a source ended it."""
    lines = [f"{about['blocks']:,} blocks of {about['max_length']:,} tokens, {about['tokens']:,} tokens"]
    for source in about["sources"]:
        line = (
            f"{source['path']}: {source['realised_share']:.2%} (asked {source['share']:.2%}), "
            f"{source['trained_tokens']:,} tokens, {source['epochs']:g} epochs of {source['documents']:,} documents"
        )
        for reason, count in source["set_aside"].items():
            line += f"; {count:,} set aside: {reason}"
        lines.append(line)
    if about["ended_by"] is not None:
        lines.append(f"{about['ended_by']} has run out and is not repeated, so the training ends with it")
    return lines
