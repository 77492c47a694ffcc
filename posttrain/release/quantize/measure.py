"""A checkpoint loaded as its users load it: does it generate, and what is its perplexity; in a process of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to load and to measure.

    Attributes:
        folder: The checkpoint.
        backend: The kernel of GPTQModel that is asked for; None for a checkpoint that is not quantised.
        prompt: Token ids to go on from; empty to generate nothing.
        new_tokens: How many tokens to generate at most.
        rows: Held-out token ids; empty to measure nothing.
        device: `cpu` or `cuda`.
        dtype: What perplexity is computed in. Text is generated in the dtype that the checkpoint states.
        trust_remote_code: As the recipe says.
    """

    folder: str
    backend: str | None
    prompt: list[int]
    new_tokens: int
    rows: list[list[int]]
    device: str
    dtype: str
    trust_remote_code: bool


def measure(job: Job) -> dict[str, Any]:
    """Return `new_tokens` if there was a prompt, and `loss` and `tokens` if there were rows.

    Raises:
        RuntimeError: It generates nothing, or its logits are not numbers.
    """
    import torch

    found: dict[str, Any] = {}
    model = load(job)
    if job.prompt:
        found["new_tokens"] = _generate(model, job)
    if job.rows:
        dtype = getattr(torch, job.dtype)
        # A GPU unpacks quickly, and may have no room for all weights unpacked.
        model = with_dense_weights(model, dtype) if job.device == "cpu" else _in_dtype(model, dtype)
        found["loss"], found["tokens"] = mean_loss(model, job.rows)
    return found


def load(job: Job) -> Any:
    """Load the checkpoint with plain transformers, and with the kernel asked for where that is not left to it."""
    from transformers import AutoModelForCausalLM, GPTQConfig

    from posttrain.release.quantize.source import CONFIG, read_json

    extra: dict[str, Any] = {}
    if job.backend not in (None, AUTO):
        from pathlib import Path

        settings = read_json(Path(job.folder) / CONFIG)["quantization_config"]
        keys = ("bits", "group_size", "desc_act")
        extra["quantization_config"] = GPTQConfig(**{key: settings[key] for key in keys}, backend=job.backend)
    model = AutoModelForCausalLM.from_pretrained(
        job.folder,
        dtype="auto",
        # One GPU, several, or a GPU and the processor, as the model needs.
        device_map={"": "cpu"} if job.device == "cpu" else "auto",
        trust_remote_code=job.trust_remote_code,
        **extra,
    )
    return model.eval()


def _generate(model: Any, job: Job) -> int:
    """Generate greedily and return the number of tokens, the end of the turn included."""
    import torch

    prompt = torch.tensor([job.prompt], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=prompt).logits
        if not bool(torch.isfinite(logits).all()):
            raise RuntimeError("the logits are not all finite")
        written = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=job.new_tokens, do_sample=False
        )
    new = int(written.shape[1]) - len(job.prompt)
    if new < 1:
        raise RuntimeError("it generated no token")
    return new


def with_dense_weights(model: Any, dtype: Any) -> Any:
    """Return the model with every layer of GPTQModel's torch kernel as an ordinary one of the same weights.

    The kernel unpacks its weights at every forward pass; here they are unpacked once. The result is the model's own,
    whatever kernel runs it.

    Args:
        model: The model, changed in place.
        dtype: The `torch.dtype` of all weights afterwards.
    """
    import torch

    packed = [(name, module) for name, module in model.named_modules() if hasattr(module, "dequantize_weight")]
    for name, module in packed:
        weight = module.dequantize_weight().T.to(dtype).contiguous()  # of (inputs, outputs) before
        dense = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=module.bias is not None, device="meta")
        dense.weight = torch.nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            dense.bias = torch.nn.Parameter(module.bias.to(dtype), requires_grad=False)
        model.set_submodule(name, dense)
    return _in_dtype(model, dtype)


def _in_dtype(model: Any, dtype: Any) -> Any:
    """Convert the parameters alone: transformers refuses `to(dtype)`, and buffers have the precision they need."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def mean_loss(model: Any, rows: Sequence[Sequence[int]]) -> tuple[float, int]:
    """Return the mean negative log-likelihood of the tokens in nats, and how many were scored.

    Every token of a row but the first is scored, given those before it in the row. One row goes through the model at a
    time and the sum is in float64, so that neither batches nor their order change the result.
    """
    import torch

    total, tokens = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([list(row)], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            total += float(losses.double().sum())
            tokens += len(row) - 1
    return total / tokens, tokens


def perplexity(loss: float) -> float:
    """Return the exponential of a mean negative log-likelihood in nats; infinite where that is too large a number."""
    return math.exp(loss) if loss < 700 else math.inf
