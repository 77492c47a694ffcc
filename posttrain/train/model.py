"""Loading, making and saving models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.recipe.schema import Launch, Model, NewModel
from posttrain.train.sharding import asked_for, rows_of, shard_while_loading

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from posttrain.chat import Template

ADAPTER_CONFIG = "adapter_config.json"


def new_model(settings: NewModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Make a Llama with random float32 weights that depend on the seed alone."""
    from dataclasses import asdict

    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    sizes = asdict(settings)
    rope = {"rope_type": "default", "rope_theta": sizes.pop("rope_theta")}
    config = LlamaConfig(
        **sizes,
        rope_parameters=rope,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    set_seed(seed)
    return LlamaForCausalLM(config)


def uses_cpu(launch: Launch) -> bool:
    """Say whether training runs on the processor: the recipe says so, or there is nothing else.

    Under DeepSpeed it never says so: accelerate would leave DeepSpeed out, which finds the processor by itself.
    """
    import torch

    if asked_for("ACCELERATE_USE_DEEPSPEED"):
        return False
    return launch.cpu or not torch.accelerator.is_available()


def training_device(launch: Launch) -> torch.device:
    """Return this process's device, and join the other processes of the launch."""
    import accelerate

    device = accelerate.PartialState(cpu=uses_cpu(launch)).device
    shard_while_loading()
    return device


def is_adapter(folder: str | Path) -> bool:
    """Say whether a checkpoint folder holds a LoRA adapter rather than a full model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def load_model(
    path: str | Path, settings: Model, *, dtype: str, quantization: str = "none", device: torch.device | None = None
) -> PreTrainedModel:
    """Load a causal language model.

    Args:
        path: A folder or hub id.
        settings: The recipe's model section, for revision, attention and remote code.
        dtype: What the weights are loaded in.
        quantization: `nf4` quantises the weights to 4 bits, with double quantisation (QLoRA, arXiv 2305.14314),
            and computes in the recipe's dtype.
        device: Where a quantised model goes; it cannot be moved afterwards.

    Raises:
        UserError: If there is no such model, or its weights are not in safetensors.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    extra: dict[str, Any] = {}
    if quantization == "nf4":
        compute = getattr(torch, settings.dtype)
        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            bnb_4bit_quant_storage=torch.uint8,
        )
        extra["device_map"] = {"": device if device is not None else torch.device("cpu")}
    if settings.attn_implementation is not None:
        extra["attn_implementation"] = settings.attn_implementation
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(path),
            dtype=getattr(torch, dtype),
            revision=settings.revision if str(path) == settings.base else None,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            **extra,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"the model {path} cannot be loaded: {str(error).splitlines()[0]}") from error
    model.config.use_cache = False
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack 4-bit weights for inference at the first evaluation, and never back: what comes
            # after trains without the gradients that have to pass through them, and computes in bfloat16.
            module.support_avx512bf16_for_cpu = False
    return model


def check_embedding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Refuse a model whose embedding has fewer rows than the tokenizer has tokens."""
    rows = rows_of(model.get_input_embeddings().weight)
    if rows < len(tokenizer):
        raise UserError(
            f"the embedding of {path} has {rows} rows, and its tokenizer {len(tokenizer)} tokens; "
            f"use the tokenizer that belongs to the model (model.tokenizer), or one without the added tokens"
        )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, template: Template | None, folder: Path) -> None:
    """Save a tokenizer with its chat template; the end of a turn becomes its end of text.

    The saved template is the training one with its markers turned into comments: it renders the same and is read
    by software that does not know the markers.
    """
    from posttrain.chat import end_of_turn_id
    from posttrain.chat.portable import portable

    if template is not None:
        tokenizer.chat_template = portable(template.text)
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end_of_turn_id(tokenizer, template))
    tokenizer.save_pretrained(folder)


def save_full(
    model: PreTrainedModel,
    folder: Path,
    *,
    dtype: torch.dtype,
    stops: list[int],
    pad: int,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save all weights as safetensors in `dtype`, with a generation config that stops where a turn ends.

    Args:
        model: The model, unwrapped; its weights are converted in place.
        stops: Token ids at which generation ends.
        pad: The pad token's id.
        state: The weights gathered from all processes, where the model's own are shards.
    """
    from transformers import GenerationConfig

    if state is None:
        model.to(dtype)
    else:
        state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    model.config.dtype = dtype
    model.config.use_cache = True
    model.config._name_or_path = ""
    model.config.eos_token_id = stops[0] if len(stops) == 1 else stops
    model.config.pad_token_id = pad
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=stops, pad_token_id=pad
    )
    model.save_pretrained(folder, state_dict=state)
