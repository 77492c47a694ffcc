"""Which kernels can read a variant, as far as its numbers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.recipe.schema_quantize import Variant

NO_GROUP = -1
# Kernels of ExLlama read 4-bit weights of these architectures.
EXLLAMA_BITS = 4
EXLLAMA_TYPES = ("llama", "mistral")


def exllama(variant: Variant, model_type: str) -> bool:
    """Say whether ExLlama reads a variant."""
    return variant.bits == EXLLAMA_BITS and model_type in EXLLAMA_TYPES


def undivided(variant: Variant, columns: Mapping[str, int]) -> dict[str, int]:
    """Return the layers whose input columns a variant's groups do not divide, with the numbers of those columns.

    Fast kernels take such a variant for one they know and fail at the first forward pass, or refuse it.

    Args:
        variant: The variant; without groups it divides every layer.
        columns: Input columns of each kind of layer by its name.
    """
    if variant.group_size == NO_GROUP:
        return {}
    return {name: width for name, width in columns.items() if width % variant.group_size}


def warnings(variants: Sequence[Variant], columns: Mapping[str, int]) -> list[str]:
    """Return a line for each variant that only GPTQModel's torch kernel can be expected to read."""
    found = []
    for variant in variants:
        name = variant.name
        if variant.group_size == NO_GROUP:
            found.append(f"{name}: without groups, so expect it to load with the torch kernel alone")
        elif layers := undivided(variant, columns):
            found.append(
                f"{name}: groups of {variant.group_size} do not divide the {widths(layers)} input columns of "
                f"{', '.join(layers)}, so expect it to load with the torch kernel alone"
            )
    return found


def widths(layers: Mapping[str, int]) -> str:
    """Return the different numbers of columns as `576` or `576 and 1,536`."""
    return " and ".join(f"{width:,}" for width in sorted(set(layers.values())))
