"""Where things were read, as a card says it: repositories of the hub, and files without the folders of a machine."""

from __future__ import annotations

import re

from posttrain.release.card.inputs import Values
from posttrain.release.card.text import code, plain

HUB = "https://huggingface.co"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LOCAL = re.compile(r"\.\.\./(.+?)(?:#[0-9a-f]{8})?")  # how posttrain.stages.portable writes a path of the machine


def shown_path(provenance: Values) -> str:
    """Write where rows were read: a repository of the hub as a link, a file by its name."""
    path = str(provenance["path"])
    if HUB_ID.fullmatch(path) and not provenance.get("files"):
        revision = str(provenance.get("revision") or "")
        at = f" at {code(revision[:12])}" if revision else ""
        return f"[{plain(path)}]({HUB}/datasets/{path}){at}"
    return code(without_folders(path))


def without_folders(path: str) -> str:
    """Return the last name of what was a path of the machine, and anything else as it is."""
    match = _LOCAL.fullmatch(path)
    return match[1] if match else path
