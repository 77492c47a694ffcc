"""The models that are measured, and how each is loaded: full weights, an adapter on its base, quantised weights."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from posttrain.assets import is_hub_id, pickled_weights
from posttrain.errors import UserError
from posttrain.train.model import is_adapter

if TYPE_CHECKING:
    import re

    from transformers import PreTrainedModel

    from posttrain.data.generate.encoding import Encoding

Kind = Literal["base", "sft", "instruct", "variant", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model to measure.

    Attributes:
        name: What results call it.
        kind: What it is among the recipe's models.
        path: Its folder or hub id.
        source: The same without anything of this machine, for results.
        digest: Of its files, or None for a repository of the hub.
        revision: Of a repository of the hub.
        origin: The model that it was made from, by name, with which it is compared.
        under: The folder or hub id of the base that an adapter is put onto.
        tokenizer: Where the tokenizer is, if not in `path`.
        trust_remote_code: Whether code of its repository may run.
    """

    name: str
    kind: Kind
    path: str
    source: str
    digest: str | None = None
    revision: str | None = None
    origin: str | None = None
    under: str | None = None
    tokenizer: str | None = None
    trust_remote_code: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as it stands in `results.json`."""
        named = {"kind": self.kind, "source": self.source, "digest": self.digest, "origin": self.origin}
        return named | ({"revision": self.revision} if self.revision is not None else {})


@dataclass(frozen=True)
class Loaded:
    """A model ready to be measured.

    `stop_ids` end an answer; `special` finds special tokens written out in a text; `context` is the most tokens that
    the model can read, None where it does not say.
    """

    checkpoint: Checkpoint
    model: PreTrainedModel
    encoding: Encoding
    stop_ids: list[int]
    special: re.Pattern[str]
    context: int | None

    @property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template; without one a prompt is plain text."""
        return self.encoding.template is not None


def problems(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return what is wrong with the models' folders, as far as their names show."""
    found = []
    for checkpoint in checkpoints:
        folder = Path(checkpoint.path).expanduser()
        if not folder.exists():
            if not is_hub_id(checkpoint.path, bare=True):
                found.append(f"eval: {checkpoint.name}: the folder {checkpoint.path} does not exist")
        elif not folder.is_dir():
            found.append(f"eval: {checkpoint.name}: {checkpoint.path} is a file; give the folder of a model")
        elif not any(folder.glob("*.safetensors")):
            pickled = pickled_weights(folder)
            holds = f"its weights as {pickled[0]}, a pickle, which can run any code" if pickled else "no weights"
            found.append(f"eval: {checkpoint.name}: {checkpoint.path} holds {holds}; give one with *.safetensors")
    return found


def load(checkpoint: Checkpoint, *, dtype: str, device: Any) -> Loaded:
    """Load a model and its tokenizer.

    Args:
        checkpoint: Which one.
        dtype: `float32`, `bfloat16` or `float16`, also of quantised weights, which are unpacked.
        device: A torch device.

    Raises:
        UserError: They cannot be loaded, or do not fit together.
    """
    from posttrain.chat.messages import special_token_pattern
    from posttrain.data.generate.encoding import Encoding

    where = f"eval: {checkpoint.name}"
    if found := problems([checkpoint]):
        raise UserError(found)
    encoding = Encoding(_tokenizer(checkpoint, where), where)
    model = _model(checkpoint, dtype, device, where)
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < len(encoding.tokenizer):
        raise UserError(
            f"{where}: the embedding of {checkpoint.path} has {rows} rows, and its tokenizer "
            f"{len(encoding.tokenizer)} tokens; use the tokenizer that belongs to it"
        )
    return Loaded(
        checkpoint=checkpoint,
        model=model,
        encoding=encoding,
        stop_ids=_stop_ids(model, encoding),
        special=special_token_pattern(encoding.tokenizer),
        context=getattr(model.config.get_text_config(), "max_position_embeddings", None),
    )


def release(device: Any) -> None:
    """Give back the memory of a model that nothing refers to any more."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _tokenizer(checkpoint: Checkpoint, where: str) -> Any:
    from transformers import AutoTokenizer

    path = checkpoint.tokenizer or checkpoint.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path,
            revision=checkpoint.revision if path == checkpoint.path else None,
            trust_remote_code=checkpoint.trust_remote_code,
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{where}: the tokenizer of {path} cannot be loaded: {_short(error)}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{where}: {path} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def _model(checkpoint: Checkpoint, dtype: str, device: Any, where: str) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    adapted = is_adapter(checkpoint.path)
    path = checkpoint.under if adapted else checkpoint.path
    if path is None:
        raise UserError(f"{where}: {checkpoint.path} is an adapter, and its base is not known; merge it first")
    extra: dict[str, Any] = {}
    quantised = checkpoint.kind == "variant"
    several = device.type != "cpu" and torch.accelerator.device_count() > 1
    if several:  # a model that one device does not hold is spread over all of them
        extra["device_map"] = "auto"
    if quantised:
        extra |= {"quantization_config": _gptq(Path(path)), "device_map": extra.get("device_map", {"": device})}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype="auto" if quantised else getattr(torch, dtype),
            revision=checkpoint.revision if path == checkpoint.path else None,
            trust_remote_code=checkpoint.trust_remote_code,
            use_safetensors=True,
            **extra,
        )
        if adapted:
            from posttrain.train.lora import load_adapter

            model = load_adapter(model, Path(checkpoint.path), trainable=False).merge_and_unload()
        if quantised:
            from posttrain.release.quantize.measure import with_dense_weights

            # The kernels unpack the weights at every forward pass; in float32 the unpacked ones are exactly theirs.
            model = with_dense_weights(model, getattr(torch, dtype))
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{where}: the model {path} cannot be loaded: {_short(error)}") from error
    if not several and not quantised:
        model.to(device)
    model.eval()
    return model


def _gptq(folder: Path) -> Any:
    """Ask for GPTQModel's torch kernel, which reads every variant, and for errors alone of what it has to tell."""
    import importlib.util
    import json

    from transformers import GPTQConfig

    if importlib.util.find_spec("logbar") is not None:
        from logbar import LogBar

        LogBar.shared().setLevel("ERROR")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    return GPTQConfig(**{key: settings[key] for key in ("bits", "group_size", "desc_act")}, backend="torch")


def _stop_ids(model: PreTrainedModel, encoding: Encoding) -> list[int]:
    """Return the ids that end an answer: those the checkpoint names, the tokenizer's EOS and the template's own."""
    from contextlib import suppress

    from posttrain.chat import end_of_turn_id

    known = model.generation_config.eos_token_id
    ids = [*(known if isinstance(known, list) else [known]), encoding.tokenizer.eos_token_id]
    if encoding.template is not None:
        with suppress(UserError):  # a template may end a turn with text, at which no answer stops by itself
            ids.append(end_of_turn_id(encoding.tokenizer, encoding.template))
    return list(dict.fromkeys(int(token) for token in ids if token is not None))


def _short(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, which is run only with model.trust_remote_code=true"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
