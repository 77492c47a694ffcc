"""Tokens per second, packing efficiency, and on a GPU model FLOPs utilisation and peak memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

# Dense bf16 peak in FLOP/s, without sparsity, from the vendors' data sheets.
PEAK_BF16 = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "MI250X": 191.5e12,  # one of the two dies, which is what PyTorch shows as a device
    "RTX 4090": 165e12,
}


def peak_flops(device_name: str) -> float | None:
    """Return the dense bf16 peak of a GPU in FLOP/s, or None for one that is not in the table."""
    return next((peak for name, peak in PEAK_BF16.items() if name.lower() in device_name.lower()), None)


def flops_per_token(parameters: int, config: PretrainedConfig, length: int) -> float:
    """Training FLOPs a token costs: 6 a parameter, and 12 · layers · width · length for attention.

    The formula is that of PaLM, appendix B (arXiv 2204.02311), with the causal half not taken off.

    Args:
        parameters: Number of parameters that take part in matrix products, embeddings left out.
        config: The model's configuration.
        length: Length in tokens over which a token attends.
    """
    text = config.get_text_config()
    layers = int(getattr(text, "num_hidden_layers", 0))
    width = int(getattr(text, "hidden_size", 0))
    return 6.0 * parameters + 12.0 * layers * width * length


class Throughput:
    """Counts what the training steps see, and turns it into rates at every log.

    The clock runs between logs and is stopped while the trainer evaluates or saves. Counts stay tensors on their
    device until a log reads them, so counting does not wait for the GPU.
    """

    def __init__(self) -> None:
        self._clock: float | None = None
        self._seconds = 0.0
        self._counts: list[torch.Tensor] = []
        self.total_seconds = 0.0
        self.totals = {"tokens": 0, "trained_tokens": 0, "slots": 0}

    def start(self) -> None:
        """Run the clock, if it does not run already."""
        if self._clock is None:
            self._clock = time.perf_counter()

    def stop(self) -> None:
        """Halt the clock; what follows is not training."""
        if self._clock is not None:
            self._seconds += time.perf_counter() - self._clock
            self._clock = None

    def count(self, inputs: dict[str, Any], slots: int) -> None:
        """Count one micro-batch: its tokens, those with a loss, and the places it had room for.

        Args:
            inputs: The collated batch; `input_ids` of shape (rows, length), and `labels` or `completion_mask`.
            slots: Tokens that the batch has room for.
        """
        import torch

        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        tokens = mask.sum() if mask is not None else torch.tensor(ids.numel(), device=ids.device)
        if "labels" in inputs:
            trained = (inputs["labels"][..., 1:] != -100).sum()
        else:
            trained = inputs["completion_mask"][..., 1:].sum()
        self._counts.append(torch.stack([tokens, trained, torch.tensor(slots, device=ids.device)]))

    def rates(self, accelerator: Any, per_token: float | None) -> dict[str, float]:
        """Return the rates since the last call, over all processes; every process must call it.

        Args:
            accelerator: The trainer's accelerator, for the sum over processes.
            per_token: FLOPs a token costs, for the utilisation; None leaves it out.
        """
        import torch

        self.stop()
        if not self._counts:
            return {}
        summed = accelerator.reduce(torch.stack(self._counts).sum(0), reduction="sum")
        tokens, trained, slots = (int(value) for value in summed.tolist())
        seconds = max(self._seconds, 1e-9)
        self.total_seconds += self._seconds
        for key, value in zip(self.totals, (tokens, trained, slots), strict=True):
            self.totals[key] += value
        self._counts, self._seconds = [], 0.0
        logs = {"tokens_per_second": tokens / seconds, "trained_tokens_per_second": trained / seconds}
        if slots:
            logs["packing_efficiency"] = tokens / slots
        if accelerator.device.type == "cuda":
            logs["peak_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            peak = peak_flops(torch.cuda.get_device_name())
            if peak is not None and per_token is not None:
                logs["mfu"] = tokens / seconds * per_token / (peak * accelerator.num_processes)
        return logs

    def summary(self) -> dict[str, float]:
        """Return the mean rates of this process's part of the run; a resumed run has had others."""
        seconds = max(self.total_seconds, 1e-9)
        return {
            "tokens_per_second": round(self.totals["tokens"] / seconds, 1),
            "trained_tokens_per_second": round(self.totals["trained_tokens"] / seconds, 1),
            "packing_efficiency": round(self.totals["tokens"] / max(self.totals["slots"], 1), 4),
        }
