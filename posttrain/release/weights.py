"""The safetensors files of a checkpoint: whole, and together what their index says.

The layout is that of https://github.com/huggingface/safetensors: the length of the header (8 bytes, little-endian), the
header in JSON, then the tensors end to end.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.release.limits import read_json

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_HEADER = 100 << 20  # bytes, which the format's own reader takes at most


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file.

    Raises:
        UserError: The file is not in the format, or its size is not the one that the header tells.
    """
    size = os.path.getsize(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        content = file.read(length) if 0 < length <= min(_HEADER, size - 8) else b""
    try:
        header = json.loads(content)
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise UserError(f"{path.name}: is not a safetensors file; nothing else is released or loaded") from None
    if 8 + length + max(ends, default=0) != size:
        raise UserError(f"{path.name}: has {size} bytes, and {8 + length + max(ends, default=0)} by its header")
    return dict(header)


def weight_problems(folder: Path, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the weights among the files of a checkpoint.

    Args:
        folder: The checkpoint.
        names: Its files.
    """
    shards = sorted(name for name in names if name.endswith(SUFFIX))
    indices = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if not shards:
        return ["there are no weights in it (*.safetensors)"]
    found: list[str] = []
    tensors: dict[str, str] = {}
    for shard in shards:
        try:
            tensors.update({name: shard for name in read_header(folder / shard) if name != "__metadata__"})
        except (UserError, OSError) as error:
            found.append(str(error))
    if found:
        return found
    if not indices:
        extra = [name for name in shards if name != f"model{SUFFIX}"]
        return [f"{name}: no index names it, and transformers reads model.safetensors only" for name in extra]
    for name in indices:
        try:
            listed = read_json(folder / name, name).get("weight_map")
        except UserError as error:
            found += error.problems
            continue
        if not isinstance(listed, dict):
            found.append(f"{name}: has no weight_map")
            continue
        wanted = {str(shard) for shard in listed.values()}
        found += [f"{shard!r}: {name} names it, and it is not there" for shard in sorted(wanted - set(shards))]
        found += [f"{shard}: {name} does not name it" for shard in sorted(set(shards) - wanted)]
        if not found and (
            wrong := sorted(tensor for tensor in {*listed, *tensors} if listed.get(tensor) != tensors.get(tensor))
        ):
            found.append(f"{name}: {len(wrong)} tensors are not where it says, the first is {wrong[0]}")
    return found
