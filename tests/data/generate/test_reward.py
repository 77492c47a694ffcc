"""The reward model: one number a conversation, the same alone and in a batch; what it cannot score it says."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, set_seed

from posttrain.chat import render
from posttrain.data.generate.requests import Failed, Transient
from posttrain.data.generate.reward import Reward
from posttrain.data.rows import Message
from posttrain.errors import UserError
from posttrain.recipe.schema_generate import RewardModel
from tests.helpers import make_tokenizer, save_checkpoint


def conversation(answer: str) -> list[Message]:
    return [{"role": "user", "content": "Missä vene on?"}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [conversation(text) for text in ("Järvellä.", "The boat is on the lake. " * 9, "x", "A fox runs.", "?")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_classifier(tmp_path_factory.mktemp("reward"))


def save_classifier(folder: Path, **settings: Any) -> Path:
    """A tiny classifier with random weights in the folder of a tiny chat model."""
    save_checkpoint(make_tokenizer(), folder)
    config = LlamaConfig.from_pretrained(folder, **({"num_labels": 1, "pad_token_id": None} | settings))
    set_seed(5)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder


def options(folder: Path, **settings: Any) -> RewardModel:
    given: dict[str, Any] = {"model": str(folder), "dtype": "float32", "batch_size": 3}
    return RewardModel(**(given | settings))


def by_hand(folder: Path, messages: list[Message]) -> float:
    """The score as the model's card would have it computed: one conversation, no padding."""
    tokenizer = make_tokenizer()
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    text = render(template, messages, tokenizer.special_tokens_map).text
    model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return float(model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0])


@pytest.mark.parametrize("pad", [None, "<|finetune_right_pad_id|>"], ids=["no pad token", "pad token"])
def test_a_score_is_the_same_alone_in_a_batch_and_in_any_order(tmp_path: Path, pad: str | None) -> None:
    folder = save_classifier(tmp_path, pad_token_id=pad and make_tokenizer().convert_tokens_to_ids(pad))
    expected = [by_hand(folder, messages) for messages in CONVERSATIONS]
    assert len(set(expected)) == len(expected)
    reward = Reward(options(folder))
    assert reward.score_many(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)
    assert reward.score_many(CONVERSATIONS[::-1]) == pytest.approx(expected[::-1], abs=1e-5)
    assert reward.score_many([]) == []

    async def at_once() -> list[float]:
        try:
            return await asyncio.gather(*map(reward.score, CONVERSATIONS))
        finally:
            await reward.close()

    assert asyncio.run(at_once()) == pytest.approx(expected, abs=1e-5)


def test_the_last_token_is_the_end_whichever_it_is(tmp_path: Path) -> None:
    """A classifier looks for the end of a text from the right, past pad tokens; the first token of all is id 0."""
    folder = save_classifier(tmp_path)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "{{ bos_token }}", encoding="utf-8")
    assert make_tokenizer().bos_token_id == 0
    expected = [by_hand(folder, messages) for messages in CONVERSATIONS]
    assert Reward(options(folder)).score_many(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)


def test_nothing_is_cut_off(checkpoint: Path) -> None:
    async def scores(reward: Reward) -> list[Any]:
        jobs = map(reward.score, (CONVERSATIONS[0], conversation("x" * 200), CONVERSATIONS[2]))
        return await asyncio.gather(*jobs, return_exceptions=True)

    short, long, other = asyncio.run(scores(Reward(options(checkpoint, max_length=150))))
    assert isinstance(long, Failed)
    assert long.reason.startswith("conversation too long for the reward model: ")
    assert long.reason.endswith("more than 150")
    assert isinstance(short, float)
    assert isinstance(other, float)
    # The context of the tiny model bounds it too.
    with pytest.raises(Failed, match="more than 256"):
        Reward(options(checkpoint)).score_many([conversation("x" * 300)])


def test_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    causal = save_checkpoint(make_tokenizer(), tmp_path / "causal")
    with pytest.raises(UserError, match=r"reward\.model: .*/causal has no weights for score\.weight"):
        Reward(options(causal)).load()
    with pytest.raises(UserError, match="gives 3 numbers"):
        Reward(options(save_classifier(tmp_path / "three", num_labels=3))).score_many(CONVERSATIONS)
    with pytest.raises(UserError, match=r"reward\.model: the folder .*/none does not exist"):
        Reward(options(tmp_path / "none")).load()


def test_a_score_that_is_not_a_number_fails_its_conversation(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    model.score.weight.data.fill_(torch.inf)
    model.save_pretrained(folder)
    with pytest.raises(Failed, match="not a number"):
        Reward(options(folder)).score_many(CONVERSATIONS[:1])


def test_after_close_there_are_no_scores(checkpoint: Path) -> None:
    async def closed() -> None:
        reward = Reward(options(checkpoint))
        await reward.score(CONVERSATIONS[0])
        await reward.close()
        with pytest.raises(Transient):
            await reward.score(CONVERSATIONS[0])

    asyncio.run(closed())


REMOTE = """
from dataclasses import dataclass
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

from .configuration_gated import GatedConfig


@dataclass
class Output(ModelOutput):
    score: torch.FloatTensor = None
    logits: torch.FloatTensor = None


class Gated(LlamaPreTrainedModel):
    config_class = GatedConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        lengths = attention_mask.sum(dim=1).float()
        return Output(score=lengths / 8, logits=torch.zeros(len(input_ids), 19))
"""


def test_a_model_with_code_of_its_own_returns_its_score(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder = tmp_path / "gated"
    shutil.copytree(checkpoint, folder)
    (folder / "modeling_gated.py").write_text(REMOTE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["Gated"],
        "model_type": "gated",
        "auto_map": {
            "AutoConfig": "configuration_gated.GatedConfig",
            "AutoModelForSequenceClassification": "modeling_gated.Gated",
        },
    }
    (folder / "configuration_gated.py").write_text(
        "from transformers import LlamaConfig\n\n\nclass GatedConfig(LlamaConfig):\n    model_type = 'gated'\n"
    )
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"only with reward\.trust_remote_code=true"):
        Reward(options(folder)).load()
    lengths = Reward(options(folder, trust_remote_code=True)).score_many(CONVERSATIONS)
    tokenizer = make_tokenizer()
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    texts = [render(template, messages, tokenizer.special_tokens_map).text for messages in CONVERSATIONS]
    assert lengths == [len(tokenizer(text, add_special_tokens=False)["input_ids"]) / 8 for text in texts]
