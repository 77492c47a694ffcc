"""A model in this process that answers requests, in batches: for small models and trials, without a server."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

from posttrain.chat import end_of_turn_id
from posttrain.chat.messages import special_token_pattern
from posttrain.data.generate.batching import Batcher
from posttrain.data.generate.encoding import Encoding
from posttrain.data.generate.models import load_causal, load_tokenizer
from posttrain.data.generate.requests import LENGTH, Answer, Failed, Request, Transient
from posttrain.data.generate.sampling import Draw, Limit, RowEndings, RowSampler
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import Teacher

STOP = "stop"  # the `finish_reason` of an answer that the model ended, or a stop string did
# Rotary embeddings that change with the longest text of a batch: their answers would depend on the company.
_BY_LENGTH = ("dynamic", "longrope", "su")


@dataclass(frozen=True)
class _Job:
    """A request with its prompt as tokens, and the most tokens that may follow."""

    request: Request
    ids: list[int]
    most: int


@dataclass(frozen=True)
class _Loaded:
    """A model ready to generate. `context` is in tokens; `alone` says that a text must have no company in a batch."""

    model: PreTrainedModel
    encoding: Encoding
    stop_ids: list[int]
    special: re.Pattern[str]
    context: int | None
    alone: bool

    def text(self, ids: list[int], stops: Sequence[str]) -> str:
        """Decode an answer without special tokens, up to the first stop string, which may be one."""
        tokenizer = self.encoding.tokenizer
        raw: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        ends = [at for at in (raw.find(stop) for stop in stops) if at >= 0]
        if ends:
            return self.special.sub("", raw[: min(ends)])
        text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class Local:
    """An engine that generates with transformers, on the accelerator if there is one.

    An answer depends on its request and not on the others in its batch or on their order: each row has its own random
    numbers, stop strings and length. What the others can still change is how logits are rounded, through padding and
    the shape of matrix products. In float32 that decides a few drawn tokens in a million; in bfloat16 and float16 near
    ties, as on any server. With `batch_size: 1` there is not even that.

    The prompt of a conversation is the tokenizer's own chat template. Of the checkpoint's generation settings only the
    stop tokens are used: temperature, top-p and the rest are the request's alone.

    Args:
        teacher: The section of the recipe.
        key: The section's name, for messages.
    """

    structured = False

    def __init__(self, teacher: Teacher, key: str = "teacher") -> None:
        self._teacher = teacher
        self._key = key
        self._encoding: Encoding | None = None
        self._loaded: _Loaded | None = None
        # A batch lasts as long as its longest answer, so answers of one class of length go together.
        self._batcher: Batcher[_Job, Answer] = Batcher(
            self._answer,
            name=f"{key} {teacher.model}",
            batch_size=teacher.batch_size,
            too_big=(torch.OutOfMemoryError,),
        )

    def load(self) -> None:
        """Load tokenizer and model now rather than at the first request.

        Raises:
            UserError: They cannot be loaded, or do not fit together.
        """
        self._load_encoding()
        self._load_model()

    async def complete(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            Failed: The prompt is empty, too long for the model, or does not open with exactly one BOS; the template
                refuses the conversation; the model's logits are not numbers; or there is not enough memory.
            Transient: The engine was closed meanwhile.
            UserError: The model or its tokenizer cannot be loaded.
        """
        encoding = self._load_encoding()
        # Here and not in the thread: rendering is not safe in two threads at once, and other coroutines render too.
        if request.messages is not None:
            ids = encoding.conversation(request.messages, opened=True)
        else:
            ids = encoding.text(request.prompt or "")
        job = _Job(request, ids, request.sampling.max_tokens)
        try:
            return await self._batcher.submit(job, size=len(ids), group=job.most.bit_length())
        except torch.OutOfMemoryError as error:
            raise Failed(f"out of memory: a prompt of {len(ids)} tokens") from error

    async def close(self) -> None:
        """Give up what is being generated, and let go of the model."""
        await self._batcher.close()
        self._loaded = None

    def _load_encoding(self) -> Encoding:
        if self._encoding is None:
            self._encoding = Encoding(load_tokenizer(self._teacher, self._key), f"{self._key}.model")
        return self._encoding

    def _load_model(self) -> _Loaded:
        if self._loaded is None:
            encoding = self._load_encoding()
            model = load_causal(self._teacher, self._key)
            rows = model.get_input_embeddings().weight.shape[0]
            if rows < len(encoding.tokenizer):
                raise UserError(
                    f"{self._key}.model: the embedding of {self._teacher.model} has {rows} rows, and the tokenizer has "
                    f"{len(encoding.tokenizer)} tokens; give the one that belongs to it in {self._key}.tokenizer."
                )
            config = model.config.get_text_config()
            self._loaded = _Loaded(
                model=model,
                encoding=encoding,
                stop_ids=_stop_ids(model, encoding),
                special=special_token_pattern(encoding.tokenizer),
                context=getattr(config, "max_position_embeddings", None),
                alone=_depends_on_length(getattr(config, "rope_parameters", None)),
            )
            model.generation_config = GenerationConfig()  # whatever else it says, the request decides
        return self._loaded

    def _answer(self, jobs: list[_Job]) -> Sequence[Answer | Exception]:
        """Answer a batch; called in the thread."""
        loaded = self._load_model()
        fitting = [_fit(job, loaded.context) for job in jobs]
        todo = [job for job in fitting if isinstance(job, _Job)]
        size = 1 if loaded.alone else max(1, len(todo))
        parts = [todo[start : start + size] for start in range(0, len(todo), size)]
        answers = iter([answer for part in parts for answer in self._generate(loaded, part)])
        return [next(answers) if isinstance(job, _Job) else job for job in fitting]

    @torch.inference_mode()
    def _generate(self, loaded: _Loaded, jobs: list[_Job]) -> list[Answer | Exception]:
        device = loaded.model.device
        pad = next(iter(loaded.stop_ids), 0)  # masked, so that any will do
        width = max(len(job.ids) for job in jobs)
        blanks = [width - len(job.ids) for job in jobs]
        sampler = RowSampler([_draw(job.request) for job in jobs], device)
        endings = RowEndings(
            [Limit(job.most, tuple(job.request.sampling.stop)) for job in jobs],
            loaded.stop_ids,
            loaded.encoding.tokenizer,
            lambda: self._batcher.closing,
        )
        loaded.model.generate(
            input_ids=torch.tensor([[pad] * n + job.ids for n, job in zip(blanks, jobs, strict=True)], device=device),
            attention_mask=torch.tensor([[0] * n + [1] * (width - n) for n in blanks], device=device),
            generation_config=GenerationConfig(
                do_sample=False, max_new_tokens=max(job.most for job in jobs), pad_token_id=pad
            ),
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([endings]),
        )
        if self._batcher.closing:
            return [Transient("closed") for _ in jobs]
        rows = zip(jobs, endings.written, endings.stopped, sampler.broken.tolist(), strict=True)
        return [
            Failed("the model's logits are not numbers")
            if broken
            else Answer(
                text=loaded.text(ids, job.request.sampling.stop),
                finish_reason=STOP if stopped else LENGTH,
                prompt_tokens=len(job.ids),
                completion_tokens=len(ids),
            )
            for job, ids, stopped, broken in rows
        ]


def _stop_ids(model: PreTrainedModel, encoding: Encoding) -> list[int]:
    """Return the ids that end an answer: those the checkpoint names, the tokenizer's EOS and the template's own."""
    known = model.generation_config.eos_token_id
    ids = [*(known if isinstance(known, list) else [known]), encoding.tokenizer.eos_token_id]
    if encoding.template is not None:
        # A template may end a turn with text, at which no answer stops by itself; it can be asked all the same.
        with contextlib.suppress(UserError):
            ids.append(end_of_turn_id(encoding.tokenizer, encoding.template))
    return list(dict.fromkeys(int(token) for token in ids if token is not None))


def _fit(job: _Job, context: int | None) -> _Job | Failed:
    """Bound an answer by what is left of the model's context."""
    if context is None:
        return job
    left = context - len(job.ids)
    if left < 1:
        return Failed(f"prompt too long: {len(job.ids)} tokens, in a context of {context}")
    return replace(job, most=min(job.most, left))


def _draw(request: Request) -> Draw:
    seed = request.seed
    if seed is None:  # greedy; were it not, equal requests would still have equal answers
        seed = int.from_bytes(request.key("", None)[:4], "big")
    return Draw(request.sampling.temperature, request.sampling.top_p, seed)


def _depends_on_length(rope: object) -> bool:
    """Say whether rotary parameters, as in a model's config, are of a kind that changes with a text's length."""
    if not isinstance(rope, dict):
        return False
    return rope.get("rope_type") in _BY_LENGTH or any(_depends_on_length(value) for value in rope.values())
