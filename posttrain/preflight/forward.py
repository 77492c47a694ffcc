"""The first batch on the real model: loss forward, gradients backward, and the memory that this takes."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.preflight.findings import Finding, error, note
from posttrain.preflight.findings import warning as warn

if TYPE_CHECKING:
    import torch

    from posttrain.preflight.subject import Subject
    from posttrain.train.parts import Settings

_GB = 1e9


def check(subject: Subject) -> Iterator[Finding]:
    """Run one micro-batch of the first stage that trains on chats or pairs, in one process, without an optimiser."""
    recipe = subject.recipe
    if recipe.sft is None and recipe.dpo is None:
        yield note("--forward: the recipe trains neither on chats nor on pairs, so there is no batch to try")
        return
    name, section = ("sft", recipe.sft) if recipe.sft is not None else ("dpo", recipe.dpo)
    base, data = subject.base, subject.complete("data")
    if base is None or data is None:
        left = "the base model" if base is None else "the data"
        stage = "cpt" if base is None else "data"
        yield warn(f"--forward: {left} is not there yet; build it with posttrain {stage}, then check again")
        return
    rows = _rows(subject, name, section, data)
    if not rows:
        yield error(f"--forward: no row of {data} can be trained on")
        return
    import torch

    try:
        yield from _run(subject, name, section, base, rows)
    except torch.OutOfMemoryError as problem:
        yield error(
            f"--forward: {name}: a batch of {len(rows)} rows does not fit one device ({str(problem).splitlines()[0]}); "
            f"lower {name}.per_device_train_batch_size or {name}.max_length, set {name}.gradient_checkpointing=true, "
            "or share the model among devices (launch/accelerate/fsdp2.yaml)"
        )


def _rows(subject: Subject, name: str, section: Any, data: Path) -> list[tuple[list[int], list[int]]]:
    """Return ids and labels of the first rows that can be trained on, as many as a micro-batch has.

    Rows are not packed; of a pair they are the two conversations.
    """
    from posttrain.chat import Encoder
    from posttrain.train.dataset import IGNORED
    from posttrain.train.parts import Part, Settings, read_rows

    assert subject.equipped is not None
    kind = "sft" if name == "sft" else "preference"
    settings: Settings = Settings(kind, section.max_length, getattr(section, "loss_on", "assistant"))
    path = data / kind / "train.parquet"
    first = read_rows(Part(path, 0, path), kind)
    count = section.per_device_train_batch_size
    table = settings.encode(first[: 4 * count + 16], Encoder(*subject.equipped)).table.slice(0, count)
    columns = table.to_pydict()
    if kind == "sft":
        return list(zip(columns["input_ids"], columns["labels"], strict=True))
    return [
        (prompt + answer, [IGNORED] * len(prompt) + answer)
        for side in ("chosen_ids", "rejected_ids")
        for prompt, answer in zip(columns["prompt_ids"], columns[side], strict=True)
    ]


def _run(
    subject: Subject, name: str, section: Any, base: str | Path, rows: list[tuple[list[int], list[int]]]
) -> Iterator[Finding]:
    import torch
    from transformers import set_seed

    from posttrain.train.loop import quiet_libraries
    from posttrain.train.model import load_model, uses_cpu

    quiet_libraries()

    recipe = subject.recipe
    device = torch.device("cpu" if uses_cpu(recipe.launch) else torch.accelerator.current_accelerator())
    before = _resident()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    set_seed(recipe.seed)
    dtype = recipe.model.trainable_dtype if section.lora is None else recipe.model.dtype
    model = load_model(base, recipe.model, dtype=dtype, quantization=section.quantization, device=device)
    if section.quantization == "none":
        model.to(device)
    if section.lora is not None:
        from peft import get_peft_model

        from posttrain.train.lora import lora_config

        model = get_peft_model(model, lora_config(section.lora), autocast_adapter_dtype=True)
    if section.gradient_checkpointing:
        # Renamed in transformers 5.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable()
        model.enable_input_require_grads()
    model.train()
    loss, tokens = _loss(model, rows, device, getattr(torch, recipe.model.dtype))
    loss.backward()
    norm = torch.nn.utils.get_total_norm(
        [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    )
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else _resident(peak=True) - before
    yield from judge(name, float(loss.detach()), float(norm), model.get_input_embeddings().weight.shape[0])
    longest = max(len(ids) for ids, _ in rows)
    yield note(
        f"--forward: {name}: {len(rows)} rows of at most {longest:,} tokens, {tokens:,} trained: loss "
        f"{float(loss.detach()):.4f}, norm of the gradients {float(norm):.3g}, peak memory {memory / _GB:.2f} GB on "
        f"one {'processor' if device.type == 'cpu' else 'GPU'}, without an optimiser"
    )


def judge(name: str, loss: float, norm: float, vocabulary: int) -> Iterator[Finding]:
    """Say what loss and gradients mean.

    Args:
        name: The stage.
        loss: In nats a token.
        norm: Of all gradients.
        vocabulary: Tokens that the model chooses from; guessing loses the logarithm of that.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        yield error(
            f"--forward: {name}: loss {loss} and gradients {norm}, which are no numbers; set model.dtype=bfloat16 or "
            "float32, and see whether the weights are whole"
        )
    elif norm == 0.0:
        yield error(f"--forward: {name}: no gradient reaches a trained weight; check {name}.lora.target_modules")
    elif loss > math.log(vocabulary):
        yield warn(
            f"--forward: {name}: loss {loss:.2f} is worse than guessing among {vocabulary:,} tokens "
            f"({math.log(vocabulary):.2f}): tokenizer or chat template may be those of another model"
        )


def _loss(
    model: Any, rows: list[tuple[list[int], list[int]]], device: torch.device, compute: torch.dtype
) -> tuple[torch.Tensor, int]:
    """Return the mean loss of the trained tokens in nats, and how many there are."""
    import torch

    from posttrain.train.dataset import IGNORED

    width = max(len(ids) for ids, _ in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([each + [filler] * (width - len(each)) for each in values], device=device)

    labels = padded([labels for _, labels in rows], IGNORED)
    cast = compute != torch.float32
    with torch.autocast(device.type, dtype=compute if cast else torch.bfloat16, enabled=cast):
        logits = model(
            input_ids=padded([ids for ids, _ in rows], 0),
            attention_mask=padded([[1] * len(ids) for ids, _ in rows], 0),
            use_cache=False,
        ).logits
    wanted = labels[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), wanted, ignore_index=IGNORED)
    return loss, int((wanted != IGNORED).sum())


def _resident(*, peak: bool = False) -> int:
    """Return the bytes of memory that this process has, or the most that it has had."""
    if peak:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
