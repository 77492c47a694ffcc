"""Packed rows with FlexAttention on a GPU give the log-probabilities and gradients of TRL's padded batches."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from trl.trainer.utils import add_fused_lm_head

from posttrain.recipe.schema import Model
from posttrain.train.pairs import KEYS
from posttrain.train.shared_prefix import choose_attention
from posttrain.train.trl.reference import pair_log_probabilities
from posttrain.train.trl.shared_prefix import FLEX_MULTIPLE, PairCollator, add_shared_prefix
from tests.train.conftest import pair_rows

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
def test_flex_attention_equals_padded(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=dtype).to("cuda")
    shared = copy.deepcopy(plain)
    assert choose_attention(shared, Model(), torch.device("cuda")) == "flex_attention"
    sums = []
    for model in (plain, shared):
        add_fused_lm_head(model)
        add_shared_prefix(model)
        batch = PairCollator(pad=0, multiple=FLEX_MULTIPLE)([dict(row) for row in pair_rows(12)])
        inputs = {name: values.to("cuda") for name, values in batch.items() if model is shared or name not in KEYS}
        chosen, rejected = pair_log_probabilities(model, inputs, None)
        torch.nn.functional.softplus(rejected - chosen).mean().backward()
        sums.append(torch.stack([chosen, rejected]).float())
    assert torch.allclose(sums[0], sums[1], rtol=tolerance)
    for (name, one), other in zip(plain.named_parameters(), shared.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        difference = (one.grad - other.grad).float().norm() / one.grad.float().norm()
        assert difference < 10 * tolerance, name
