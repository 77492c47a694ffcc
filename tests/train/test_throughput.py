"""What is counted as tokens, and the FLOPs behind the utilisation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from posttrain.train.throughput import Throughput, flops_per_token, peak_flops


class OneProcess:
    """An accelerator of one process on the CPU."""

    device = torch.device("cpu")
    num_processes = 1

    def reduce(self, value: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        return value


def test_padding_is_no_token_and_a_first_label_trains_nothing() -> None:
    throughput = Throughput()
    padded = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [1, 2, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "labels": torch.tensor([[1, 2, 3, 4], [-100, 2, -100, -100]]),
    }
    packed: dict[str, Any] = {
        "input_ids": torch.tensor([[1, 2, 3, 1, 2]]),
        "labels": torch.tensor([[-100, 2, 3, -100, 2]]),
    }
    pair = {
        "input_ids": torch.tensor([[1, 2, 3], [1, 2, 4]]),
        "attention_mask": torch.ones(2, 3, dtype=torch.long),
        "completion_mask": torch.tensor([[0, 1, 1], [0, 1, 1]]),
    }
    throughput.start()
    throughput.count(padded, 8)
    throughput.count(packed, 8)
    throughput.count(pair, 6)
    logs = throughput.rates(OneProcess(), None)
    assert throughput.totals == {"tokens": 6 + 5 + 6, "trained_tokens": 4 + 3 + 4, "slots": 22}
    assert logs["packing_efficiency"] == pytest.approx(17 / 22)
    assert logs["trained_tokens_per_second"] / logs["tokens_per_second"] == pytest.approx(11 / 17)
    assert throughput.rates(OneProcess(), None) == {}, "nothing has been counted since"


def test_flops_of_the_70b() -> None:
    """6 x 70e9 for the weights, and 12 x 80 layers x 8192 x 4096 for attention."""
    config = LlamaConfig(num_hidden_layers=80, hidden_size=8192)
    assert flops_per_token(70_000_000_000, config, 4096) == pytest.approx(4.2e11 + 3.2212e10, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("AMD Instinct MI250X", 191.5e12),
        ("Something else", None),
    ],
)
def test_peak_of_a_device_by_its_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_utilisation_is_left_out_without_a_gpu() -> None:
    throughput = Throughput()
    throughput.count({"input_ids": torch.ones(1, 4), "labels": torch.ones(1, 4)}, 4)
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=1, reduce=lambda value, reduction: value)
    assert "mfu" not in throughput.rates(accelerator, 1e9)
