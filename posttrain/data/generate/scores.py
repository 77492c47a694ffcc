"""Scores of a reward model, kept where the answers are, so that none is computed twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from posttrain.data.generate.requests import Answer, key_of
from posttrain.data.generate.store import Store
from posttrain.data.rows import Message, content_id
from posttrain.recipe.schema_generate import RewardModel


class Scores:
    """The scores of one reward model.

    The key of a score holds the model, its version, `max_length`, above which a conversation has no score, and the
    conversation; not the dtype, as the keys of answers do not.

    Args:
        section: Of the recipe.
        store: Where scores are kept; whoever opened it closes it.
        compute: Scores a conversation; what it raises is not kept.
    """

    def __init__(
        self, section: RewardModel, store: Store, compute: Callable[[Sequence[Message]], Awaitable[float]]
    ) -> None:
        self._about = {"reward": section.model, "version": _version(section), "max_length": section.max_length}
        self._store = store
        self._compute = compute

    async def score(self, messages: Sequence[Message]) -> float:
        """Return the score of a conversation that ends with an assistant turn, from the store or computed.

        Raises:
            Failed: It has none.
            UserError: The model cannot be used, or the store cannot be read or written.
        """
        key = key_of({**self._about, "messages": messages})
        kept = self._store.get(key)
        if kept is not None:
            return float(kept.text)
        score = await self._compute(messages)
        # Written out by `repr`, a float is read back as the same number.
        await self._store.put(key, Answer(text=repr(score), finish_reason="stop"))
        return score


def _version(section: RewardModel) -> str | None:
    """Return the revision of a model, or of one in a folder what tells the files there from others.

    That is their names, sizes and times: to read all weights would take longer than most runs spend on scores. Where
    they differ though the files are the same, scores are only computed anew.
    """
    folder = Path(section.model)
    if not folder.is_dir():
        return section.revision
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return content_id([[path.relative_to(folder).as_posix(), it.st_size, it.st_mtime_ns] for path, it in found])
