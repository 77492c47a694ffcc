"""What the headers of a folder's safetensors files say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from posttrain.errors import UserError
from posttrain.release.card.inputs import Weights
from posttrain.release.weights import read_header

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read_weights(folder: Path) -> Weights:
    """Read number types and sizes of the weights in a folder; the weights themselves are not read.

    Raises:
        UserError: There are none, or a header is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: there are no weights (*.safetensors)")
    counts: Counter[str] = Counter()
    for file in files:
        for name, entry in read_header(file).items():
            if name != "__metadata__":
                counts[entry["dtype"]] += _product(entry["shape"])
    floats = {_DTYPES[dtype]: count for dtype, count in counts.items() if dtype in _DTYPES}
    return Weights(
        dtype=max(floats, key=lambda dtype: (floats[dtype], dtype)) if floats else None,
        bytes=sum(file.stat().st_size for file in files),
        parameters=sum(floats.values()) if len(floats) and set(counts) <= set(_DTYPES) else None,
    )


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
