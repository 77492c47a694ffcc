"""`bom.json`: what a model was made from, as an ML-BOM in CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).

Written without cyclonedx-python-lib, which has no model cards of components. It has no time in it and its serial number
follows from its content, so that the same things give the same bytes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from posttrain.data.licences import licence
from posttrain.stages.digest import sha256_text

BOM = "bom.json"
_NAMESPACE = uuid.UUID("8d3c5b1e-4c53-5d54-9d3b-2f2f4d6e0a11")  # of this project's documents
_SPDX = re.compile(r"[A-Z][A-Za-z0-9.+-]*-[0-9.]+[A-Za-z0-9.+-]*|MIT|0BSD|ISC|Unlicense|WTFPL")
_TASK = "text-generation"

Values = Mapping[str, Any]


def bill_of_materials(
    *,
    name: str,
    repository: str,
    license_id: str,
    files: Mapping[str, str],
    manifests: Mapping[str, Values],
    base: str | None,
    base_licences: Sequence[str] = (),
    architecture: str | None = None,
    description: str | None = None,
) -> str:
    """Return the document as JSON text.

    Args:
        name: What the release calls the model.
        repository: Where it is published.
        license_id: Its licence.
        files: SHA-256 of its model files by name.
        manifests: The stable parts of the manifests of the stages it was built by, by stage, in order.
        base: Hub id, or last name of the folder, of the model it starts from; None for one made anew.
        base_licences: What is known of its licence.
        architecture: `model_type` of its configuration.
        description: A sentence about it.
    """
    data = _data_sets(manifests)
    model = f"model:{repository}@{name}"
    components: list[dict[str, Any]] = [*data]
    if base is not None:
        components.append(
            {
                "type": "machine-learning-model",
                "bom-ref": f"model:{base.removeprefix('.../')}",
                "name": base.removeprefix(".../"),
                **_licences(base_licences),
            }
        )
    components += _packages(manifests)
    card = {
        "modelParameters": {
            "task": _TASK,
            **({"architectureFamily": architecture} if architecture else {}),
            "datasets": [{"ref": entry["bom-ref"]} for entry in data],
        }
    }
    metadata: dict[str, Any] = {
        "component": {
            "type": "machine-learning-model",
            "bom-ref": model,
            "name": repository,
            "version": name,
            **({"description": description} if description else {}),
            **_licences([license_id]),
            "hashes": [{"alg": "SHA-256", "content": _digest(files)}],
            "modelCard": card,
            "components": [
                {"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": [_hash(digest)]}
                for path, digest in sorted(files.items())
            ],
        },
        "lifecycles": [{"phase": "build"}],
    }
    made_from = [entry["bom-ref"] for entry in components if entry["type"] in ("machine-learning-model", "data")]
    packages = [entry["bom-ref"] for entry in components if entry["type"] == "library"]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": [{"ref": model, "dependsOn": sorted([*made_from, *packages])}],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True, ensure_ascii=False))
    document["serialNumber"] = f"urn:uuid:{serial}"
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _digest(files: Mapping[str, str]) -> str:
    """Return the digest over a model's files, as `sha256sum` of their list gives it."""
    return sha256_text("".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())))


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _licences(ids: Sequence[str]) -> dict[str, Any]:
    """Return the field `licenses` for ids; the schema takes as an id only what is on the list of SPDX."""
    found = []
    for id in ids:
        known = licence(id)
        is_spdx = _SPDX.fullmatch(known.id) is not None and known.commercial != "unknown" and "Ref" not in known.id
        entry: dict[str, str] = {"id": known.id} if is_spdx else {"name": known.name if known.known else id}
        if known.url and not is_spdx:
            entry["url"] = known.url
        found.append({"license": entry})
    return {"licenses": found} if found else {}


def _data_sets(manifests: Mapping[str, Values]) -> list[dict[str, Any]]:
    """Return a component for each source that the stages say they read, in order of the recipe's keys."""
    found: dict[str, dict[str, Any]] = {}
    for manifest in manifests.values():
        for source in manifest.get("sources", ()):
            entry, path = str(source.get("entry", "")), str(source.get("path", ""))
            if not entry or not path:
                continue
            files = [file for file in source.get("files") or () if isinstance(file, Mapping) and "sha256" in file]
            component: dict[str, Any] = {
                "type": "data",
                "bom-ref": f"data:{entry}",
                "name": path,
                **({"version": str(source["revision"])} if source.get("revision") else {}),
                **_licences([str(id) for id in source.get("licenses") or ()]),
                "data": [{"type": "dataset", "name": entry}],
                "properties": [{"name": "posttrain:entry", "value": entry}],
            }
            if "rows" in source:
                component["properties"].append({"name": "posttrain:rows", "value": str(source["rows"])})
            if files:
                listed = {str(file.get("name", "")): str(file["sha256"]) for file in files}
                component["hashes"] = [_hash(next(iter(listed.values())) if len(listed) == 1 else _digest(listed))]
            found[component["bom-ref"]] = component
    return [found[key] for key in sorted(found)]


def _packages(manifests: Mapping[str, Values]) -> list[dict[str, Any]]:
    """Return a component for each package and version that a stage was built with."""
    pairs = {(str(n), str(v)) for manifest in manifests.values() for n, v in (manifest.get("versions") or {}).items()}
    found = []
    for name, version in sorted(pairs):
        kind = "generic" if name == "python" else "pypi"
        url = f"pkg:{kind}/{name.lower().replace('_', '-')}@{quote(version, safe='.')}"
        found.append({"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url})
    return found
