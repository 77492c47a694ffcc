"""What prompts mean, as vectors: a sentence-transformers model, run in this process, its results kept on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from posttrain.assets import is_hub_id, locate
from posttrain.data.progress import Advance
from posttrain.errors import UserError
from posttrain.recipe.schema_data import SemanticDuplicates

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_KEY = "data.duplicates.semantic"
_CHUNK = 2048  # texts embedded between two files: what an interruption costs at most
_BATCH = 64  # texts; it decides the padding, and with it the last bits of a vector
# The files of a repository of the hub that are fetched: no pickles, no other formats of the same weights.
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def check_model(options: SemanticDuplicates) -> list[str]:
    """Return what is wrong with the model as far as this machine can tell at once; a hub id passes unseen."""
    problems = []
    if find_spec("sentence_transformers") is None:
        problems.append(
            f"{_KEY}: the package sentence-transformers is not installed; run "
            "`pip install -c constraints.txt -e '.[embed]'`, or leave the section out"
        )
    if not is_hub_id(options.model, bare=True):
        problems += _folder_problems(Path(locate(options.model)).expanduser())
    return problems


def _folder_problems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{_KEY}.model: there is no folder {str(folder)!r}; give a hub id or a folder"]
    if not (folder / "modules.json").is_file():
        return [f"{_KEY}.model: {folder} is no sentence-transformers model; it has no modules.json"]
    pickles = [path for path in folder.rglob("pytorch_model*.bin") if not any(path.parent.glob("*.safetensors"))]
    if pickles or not any(folder.rglob("*.safetensors")):
        return [f"{_KEY}.model: {folder} has weights that are not in safetensors, which alone are read; convert them"]
    return []


@dataclass(frozen=True)
class _Model:
    """A model in a folder, and what identifies it: a commit of the hub or the content of its files."""

    folder: Path
    identity: str


def _resolve(options: SemanticDuplicates) -> _Model:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if problems := check_model(options):
        raise UserError(problems)
    if not is_hub_id(options.model, bare=True):
        folder = Path(locate(options.model)).expanduser()
        return _Model(folder, _content(folder))
    try:
        folder = Path(snapshot_download(options.model, revision=options.revision, allow_patterns=_FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{_KEY}.model: {options.model} is no local folder, and as an id of the hub it cannot be read: {reason}; "
            "check the id, `revision`, the network and your access, or download it and give the folder"
        ) from error
    if problems := _folder_problems(folder):
        raise UserError(problems)
    return _Model(folder, f"{options.model}@{folder.name}")  # a snapshot's folder is named after the commit


def _content(folder: Path) -> str:
    """Return a hash of the files that are read, by name and content."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _FILES for path in folder.rglob(pattern)}):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def embed(
    texts: Sequence[str], options: SemanticDuplicates, *, work: Path | None = None, advance: Advance | None = None
) -> Array:
    """Return the embedding of each text, of length 1, by the recipe's model on a GPU if there is one.

    Equal texts are embedded once. A text beyond the model's own limit, often 256 to 512 tokens, is cut there. Vectors
    are float32, because float16 would move distances near 0.05 by up to 0.0004 and save half a gigabyte at 300,000
    rows. Equal texts, libraries and kind of processor give equal bytes; another processor changes the last bits.

    Args:
        texts: In any number.
        options: The model and its revision.
        work: A folder for what is done: chunks of texts that were embedded before with the same model and libraries
            are taken from there. None keeps nothing.
        advance: Told of the progress.

    Returns:
        float32, shape [texts, dimensions]; memory-mapped, read-only, where there is a work folder.

    Raises:
        UserError: sentence-transformers is not installed, or the model is missing, damaged or not in safetensors.
    """
    import numpy as np

    if not texts:
        return np.zeros((0, 0), np.float32)
    places: dict[str, int] = {}
    of_text = np.array([places.setdefault(text, len(places)) for text in texts], np.int64)
    different = list(places)
    encoder = _Encoder(_resolve(options), None if work is None else work / "embeddings")
    chunks = []
    for start in range(0, len(different), _CHUNK):
        chunks.append(encoder.chunk(different[start : start + _CHUNK]))
        if advance is not None:
            done = min(start + _CHUNK, len(different))
            advance("embedding prompts", done / len(different), done)
    if work is None:
        found: Array = np.concatenate(chunks)[of_text]
        return found
    path = work / "embeddings" / "all.npy"
    shape = (len(texts), chunks[0].shape[1])
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, len(different), _CHUNK):
        chunk = chunks[start // _CHUNK]
        here = np.flatnonzero((of_text >= start) & (of_text < start + _CHUNK))
        vectors[here] = chunk[of_text[here] - start]
    vectors.flush()
    del vectors
    return _mapped(path)


def _mapped(path: Path) -> Array:
    import numpy as np

    found: Array = np.load(path, mmap_mode="r")
    return found


class _Encoder:
    """Embeds chunks of texts; the model is loaded when the first one is not in the folder."""

    def __init__(self, model: _Model, folder: Path | None) -> None:
        import torch

        self._model = model
        self._folder = folder
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        libraries = [version(name) for name in ("sentence-transformers", "transformers", "tokenizers", "torch")]
        self._identity = json.dumps([model.identity, self._device, _BATCH, *libraries])
        self._loaded: Any = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def chunk(self, texts: list[str]) -> Array:
        """Return the vectors of some texts, from their file where there is one."""
        import numpy as np

        if self._folder is None:
            return self._encode(texts)
        name = hashlib.sha256(json.dumps([self._identity, texts]).encode()).hexdigest()[:32]
        path = self._folder / f"{name}.npy"
        if not path.exists():
            waiting = path.with_suffix(".new")
            with waiting.open("wb") as file:
                np.save(file, self._encode(texts), allow_pickle=False)
            os.replace(waiting, path)
        return _mapped(path)

    def _encode(self, texts: list[str]) -> Array:
        import numpy as np

        if self._loaded is None:
            self._loaded = self._load()
        vectors = self._loaded.encode(
            texts, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True, normalize_embeddings=True
        ).astype(np.float32)
        if not np.isfinite(vectors).all():
            raise UserError(f"{_KEY}.model: {self._model.folder.name} gives values that are no numbers; take another")
        found: Array = vectors
        return found

    def _load(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(
                str(self._model.folder),
                device=self._device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            ).eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"{_KEY}.model: {self._model.folder} cannot be loaded: {reason}") from error
