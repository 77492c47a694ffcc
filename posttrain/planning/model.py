"""What a model consists of, by its configuration alone: the shapes of its matrices, and parameters by kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.stages.external import external

if TYPE_CHECKING:
    from posttrain.recipe.schema import Lora, Model

_LLAMA_3 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}
_8B = _LLAMA_3 | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
_70B = _LLAMA_3 | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
_SMOLLM2_135M = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
# Published `config.json` of the bases that the recipes name, so that a plan needs no network. Poro 2 is Llama 3.1
# trained further, with the same sizes and vocabulary.
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.1-8B": _8B,
    "meta-llama/Llama-3.1-8B-Instruct": _8B,
    "meta-llama/Llama-3.1-70B": _70B,
    "meta-llama/Llama-3.1-70B-Instruct": _70B,
    "meta-llama/Llama-3.3-70B-Instruct": _70B,
    "LumiOpen/Llama-Poro-2-8B-base": _8B,
    "LumiOpen/Llama-Poro-2-8B-SFT": _8B,
    "LumiOpen/Llama-Poro-2-70B-base": _70B,
    "LumiOpen/Llama-Poro-2-70B-SFT": _70B,
    "HuggingFaceTB/SmolLM2-135M": _SMOLLM2_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2_135M,
}


@dataclass(frozen=True)
class _Family:
    """How a `model_type` departs from Llama: biases of q, k and v, and of o, and norms on queries and keys.

    `head` and `tied` are what transformers takes where a configuration does not say.
    """

    qkv_bias: bool | None = None  # None: as `attention_bias` of the configuration says
    o_bias: bool | None = None
    head_norms: bool = False
    head: int | None = None
    tied: bool = False


_FAMILIES = {
    "llama": _Family(),
    "mistral": _Family(qkv_bias=False, o_bias=False),
    "qwen2": _Family(qkv_bias=True, o_bias=False),
    "qwen3": _Family(head_norms=True, head=128),
    "smollm3": _Family(tied=True),
}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters by kind. A tied LM head is the embedding, and counts nothing by itself."""

    embedding: int
    attention: int
    mlp: int
    norm: int
    lm_head: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + self.attention + self.mlp + self.norm + self.lm_head

    @property
    def blocks(self) -> int:
        """Those in the matrices of the decoder layers."""
        return self.attention + self.mlp


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a decoder-only transformer with gated MLPs and RMSNorm: Llama and what is built like it.

    Attributes:
        vocab: Rows of the embedding.
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
        layers: Decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        head: Width of a head.
        tied: Whether the LM head is the embedding.
        qkv_bias: Whether the projections to queries, keys and values have biases.
        o_bias: Whether the projection of attention's output has one.
        mlp_bias: Whether the three projections of the MLP have them.
        head_norms: Whether queries and keys are normalised, each head by itself.
    """

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    tied: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False

    @property
    def queries(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head

    @property
    def keys(self) -> int:
        """Width of all keys, and of all values, of a token."""
        return self.kv_heads * self.head

    def linears(self) -> dict[str, tuple[int, int, bool]]:
        """Return the linear layers of one decoder layer by name: width in, width out, and whether there is a bias."""
        h, f = self.hidden, self.intermediate
        return {
            "q_proj": (h, self.queries, self.qkv_bias),
            "k_proj": (h, self.keys, self.qkv_bias),
            "v_proj": (h, self.keys, self.qkv_bias),
            "o_proj": (self.queries, h, self.o_bias),
            "gate_proj": (h, f, self.mlp_bias),
            "up_proj": (h, f, self.mlp_bias),
            "down_proj": (f, h, self.mlp_bias),
        }

    @property
    def parameters(self) -> Parameters:
        """Its parameters by kind."""
        sizes = {name: fan_in * out + out * bias for name, (fan_in, out, bias) in self.linears().items()}
        attention = sum(size for name, size in sizes.items() if name in ("q_proj", "k_proj", "v_proj", "o_proj"))
        norms = 2 * self.hidden + (2 * self.head if self.head_norms else 0)
        return Parameters(
            embedding=self.vocab * self.hidden,
            attention=self.layers * attention,
            mlp=self.layers * (sum(sizes.values()) - attention),
            norm=self.layers * norms + self.hidden,
            lm_head=0 if self.tied else self.vocab * self.hidden,
        )

    @property
    def matmul_parameters(self) -> int:
        """Parameters that each token is multiplied with: all but the norms and the embedding, LM head included."""
        return self.parameters.blocks + self.vocab * self.hidden

    def adapted(self, lora: Lora) -> dict[str, tuple[int, int]]:
        """Return widths in and out of the linear layers of a decoder layer that get an adapter."""
        linears = self.linears()
        wanted = lora.target_modules
        if isinstance(wanted, str) and wanted != "all-linear":
            import re

            # PEFT matches the whole name of a module.
            inside = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn"}
            full = {name: f"model.layers.0.{inside.get(name, 'mlp')}.{name}" for name in linears}
            return {name: linears[name][:2] for name, path in full.items() if re.fullmatch(wanted, path)}
        names = [name for name in linears if wanted == "all-linear" or any(_ends(name, each) for each in wanted)]
        return {name: linears[name][:2] for name in names}

    def lora_parameters(self, lora: Lora) -> int:
        """Count what is trained with LoRA: two matrices of rank r for each layer adapted, and what is trained whole.

        Llama's biases under `bias: all` and the magnitudes of DoRA are in it.
        """
        pairs = self.adapted(lora)
        count = sum(lora.r * (fan_in + out) for fan_in, out in pairs.values())
        if lora.use_dora:
            count += sum(out for _, out in pairs.values())
        linears = self.linears()
        if lora.bias != "none":
            of = linears if lora.bias == "all" else pairs
            count += sum(linears[name][1] for name in of if linears[name][2])
        whole = 0
        for name in lora.modules_to_save or ():
            if name in ("embed_tokens", "lm_head"):
                whole += self.vocab * self.hidden
            elif name in linears:
                fan_in, out, bias = linears[name]
                count += fan_in * out + out * bias
        return self.layers * count + whole


def _ends(name: str, wanted: str) -> bool:
    return name == wanted or wanted.endswith("." + name)


def shape(config: Mapping[str, Any]) -> Shape:
    """Read the sizes from the values of a `config.json`.

    Raises:
        UserError: The architecture is not one that the planner knows, or a size is missing.
    """
    kind = config.get("model_type")
    family = _FAMILIES.get(str(kind))
    if family is None:
        known = ", ".join(sorted(_FAMILIES))
        raise UserError(f"model_type {kind!r} is not among those whose memory can be planned ({known})")
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    missing = [name for name in names if not isinstance(config.get(name), int)]
    if missing:
        raise UserError(f"the model's config.json has no {', '.join(missing)}")
    heads = config["num_attention_heads"]
    attention_bias = bool(config.get("attention_bias", False))
    return Shape(
        vocab=config["vocab_size"],
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or family.head or config["hidden_size"] // heads,
        tied=bool(config.get("tie_word_embeddings", family.tied)),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        o_bias=attention_bias if family.o_bias is None else family.o_bias,
        mlp_bias=bool(config.get("mlp_bias", False)) and kind == "llama",
        head_norms=family.head_norms,
    )


def config_of(model: Model) -> dict[str, Any]:
    """Return the configuration of the recipe's model without loading anything of it but `config.json`.

    Raises:
        UserError: There is none, or it cannot be fetched.
    """
    if model.new is not None:
        return {"model_type": "llama", **asdict(model.new)}
    assert model.base is not None, "a rule of the recipe forbids it"
    there = external("model.base", model.base)
    if there.path is not None:
        return _read(there.path / "config.json", model.base)
    if model.base in KNOWN:
        return KNOWN[model.base]
    from posttrain.planning.hub import NotFetched, fetch_file

    try:
        path = fetch_file(model.base, "config.json", model.revision)
    except NotFetched as error:
        raise UserError(
            f"model.base: the configuration of {model.base} cannot be fetched ({error}); download its config.json into "
            "a folder and give the folder"
        ) from error
    return _read(path, model.base)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model.base: {name} has no config.json that can be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"model.base: config.json of {name} is not a mapping")
    text = content.get("text_config")  # of a model that also sees
    return text if isinstance(text, dict) else content
