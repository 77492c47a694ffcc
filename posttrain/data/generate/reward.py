"""A reward model in this process: one number for a conversation, how good its last answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from posttrain.data.generate.batching import Batcher
from posttrain.data.generate.encoding import Encoding
from posttrain.data.generate.models import load_classifier, load_reward_tokenizer
from posttrain.data.generate.requests import Failed
from posttrain.data.rows import Message
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import RewardModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reward:
    """Scores conversations with a sequence classifier of one output, or with a model that returns a `score`.

    The second kind, ArmoRM's (arXiv 2406.12845), is code that comes with the checkpoint and needs `trust_remote_code`.
    A score depends on the others of its batch only in the rounding of the weights' dtype.

    Args:
        options: The section of the recipe.
        key: The section's name, for messages.
    """

    def __init__(self, options: RewardModel, key: str = "reward") -> None:
        self._options = options
        self._key = key
        self._encoding: Encoding | None = None
        self._model: PreTrainedModel | None = None
        self._pad: int | None = None
        self._most = options.max_length
        self._batcher: Batcher[list[int], float] = Batcher(
            self._score,
            name=f"{key} {options.model}",
            batch_size=options.batch_size,
            too_big=(torch.OutOfMemoryError,),
        )

    def load(self) -> None:
        """Load model and tokenizer now rather than at the first conversation.

        Raises:
            UserError: They cannot be loaded, or are not those of a reward model.
        """
        self._load_encoding()
        self._load_model()

    async def score(self, messages: Sequence[Message]) -> float:
        """Return the score of a conversation that ends with an assistant turn.

        Raises:
            Failed: It is longer than `max_length` or than the model's context, does not open with exactly one BOS, is
                refused by the template, or its score is not a number.
            Transient: The model was let go meanwhile.
            UserError: The model cannot be loaded, or is no reward model.
        """
        ids = self._ids(messages)
        try:
            return await self._batcher.submit(ids, size=len(ids))
        except torch.OutOfMemoryError as error:
            raise Failed(f"out of memory: a conversation of {len(ids)} tokens") from error

    def score_many(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """Return the scores of conversations, in order, in batches of similar lengths.

        Raises:
            Failed: As `score`, for the first one that cannot be scored.
            UserError: The model cannot be loaded, or is no reward model.
        """
        tokens = [self._ids(messages) for messages in conversations]
        order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
        scores: dict[int, float] = {}
        for start in range(0, len(order), self._options.batch_size):
            batch = order[start : start + self._options.batch_size]
            for number, score in zip(batch, self._score([tokens[number] for number in batch]), strict=True):
                if isinstance(score, Exception):
                    raise score
                scores[number] = score
        return [scores[number] for number in range(len(tokens))]

    async def close(self) -> None:
        """Let go of the model, after the batch in hand."""
        await self._batcher.close()
        self._model = None

    def _load_encoding(self) -> Encoding:
        if self._encoding is None:
            self._encoding = Encoding(load_reward_tokenizer(self._options, self._key), f"{self._key}.model")
        return self._encoding

    def _load_model(self) -> PreTrainedModel:
        if self._model is None:
            model = load_classifier(self._options, self._key)
            config = model.config.get_text_config()
            self._pad = config.pad_token_id
            self._most = min(self._most, getattr(config, "max_position_embeddings", None) or self._most)
            self._model = model
        return self._model

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        return self._load_encoding().conversation(messages, opened=False)

    def _score(self, batch: list[list[int]]) -> list[float | Exception]:
        """Score a batch; called in the thread, or by `score_many`."""
        model = self._load_model()
        scores = iter(self._forward(model, [ids for ids in batch if len(ids) <= self._most]))
        # What a cut conversation loses is the end of the answer that is to be judged, so none is cut.
        return [
            next(scores)
            if len(ids) <= self._most
            else Failed(f"conversation too long for the reward model: {len(ids)} tokens, more than {self._most}")
            for ids in batch
        ]

    @torch.inference_mode()
    def _forward(self, model: PreTrainedModel, batch: list[list[int]]) -> list[float | Exception]:
        if not batch:
            return []
        pad = self._pad
        if pad is None:
            # Classifiers take the last token that is not the config's pad token for the end of a text, and refuse a
            # batch where there is none. With one that no text of the batch holds, the end is the last token.
            used = set().union(*batch)
            pad = next(token for token in range(len(used) + 1) if token not in used)
            model.config.get_text_config().pad_token_id = pad
        width = max(map(len, batch))
        output = model(
            input_ids=torch.tensor([ids + [pad] * (width - len(ids)) for ids in batch], device=model.device),
            attention_mask=torch.tensor(
                [[1] * len(ids) + [0] * (width - len(ids)) for ids in batch], device=model.device
            ),
        )
        scores = output.score if getattr(output, "score", None) is not None else output.logits
        if scores.shape not in ((len(batch),), (len(batch), 1)):
            raise UserError(
                f"{self._key}.model: {self._options.model} gives {scores[0].numel()} numbers for a conversation; a "
                "reward model gives one."
            )
        values: list[float] = scores.flatten().float().tolist()
        return [value if math.isfinite(value) else Failed("the reward is not a number") for value in values]
