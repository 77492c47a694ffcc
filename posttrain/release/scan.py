"""What must be in no release: paths and names of the machine, the user's name, and secrets."""

from __future__ import annotations

import getpass
import os
import re
import socket
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.errors import UserError
from posttrain.release.limits import TOKENIZER, size_problem
from posttrain.release.model_files import VOCABULARIES
from posttrain.release.sums import release_files

_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY(_|$)|API_?KEY", re.IGNORECASE)
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{30,}"), "a token of the hub"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"), "an API key"),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}"), "a token of GitHub"),
    (re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"), "a token of GitLab"),
    (re.compile(r"\bxox[abpr]-[A-Za-z0-9-]{10,}"), "a token of Slack"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), "a key of AWS"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
)
# Where files of users and of clusters are. A slash before, as in a URL, or a letter or a dot belongs to something else.
_PATH = re.compile(
    r"(?<![\w./:\-])(?:file://)?(/(?:home|root|Users|tmp|var|private|opt|mnt|media|srv|scratch|flash|pfs|lustre|gpfs|"
    r"projappl|project|workspace|workdir|work|nfs|dev/shm)/[^\s\"'`<>)\]},;|]+|~/[\w.][^\s\"'`<>)]*)|\b[A-Z]:\\\\?Users\\"
)
# Names so common that a text has them for other reasons.
_COMMON = frozenset(
    {
        "admin", "administrator", "build", "builder", "ci", "container", "default", "docker", "gpu", "guest", "host",
        "jovyan", "local", "localhost", "localdomain", "machine", "main", "master", "model", "node", "none",
        "nobody", "root", "runner", "server", "test", "ubuntu", "user", "users", "vm", "vscode", "worker",
    }
)  # fmt: skip
_SHORTEST_NAME, _SHORTEST_SECRET = 4, 8  # characters; anything shorter is found by chance


@dataclass(frozen=True)
class Private:
    """What is looked for: texts, each with what to call it without showing it.

    Attributes:
        words: Names of the machine and its user, found as whole words.
        texts: Paths and secrets, found anywhere.
    """

    words: dict[str, str]
    texts: dict[str, str]


def private(secrets: Sequence[str] = (), paths: Sequence[Path] = (), public: Collection[str] = ()) -> Private:
    """Gather what is private of this machine.

    Args:
        secrets: Further values that must not be found.
        paths: Folders whose absolute paths must not be found, besides home, the working folder and the one for
            temporary files.
        public: Words that may be found all the same.
    """
    words: dict[str, str] = {}
    host = socket.gethostname()
    for name in (host, host.partition(".")[0]):
        words[name] = "the name of this machine"
    try:
        words[getpass.getuser()] = "the name of this machine's user"
    except (OSError, KeyError, ImportError):  # a container's user may have none
        words.pop("", None)
    words = {
        word: what
        for word, what in words.items()
        if len(word) >= _SHORTEST_NAME and word.casefold() not in _COMMON and word not in public
    }
    texts = {}
    for path in (Path.home(), Path.cwd(), Path(tempfile.gettempdir()), *paths):
        text = str(path.absolute())
        if text.count("/") > 1 or len(text) > _SHORTEST_SECRET:
            texts[text] = "a path of this machine"
    values = [value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)]
    for value in (*values, *secrets):
        if len(value) >= _SHORTEST_SECRET and not os.path.exists(value):
            texts[value] = "a value that came from the environment"
    return Private(words, texts)


def scan(folder: Path, what: Private, untouched: Collection[str] = ()) -> list[str]:
    """Return a line for each private thing in a folder, by file and line, without the thing itself where it is secret.

    Of weights the header is searched, of everything else all that there is. Vocabularies hold any word there is, so
    names and paths in general are not looked for there.

    Args:
        folder: The release.
        what: What is private.
        untouched: Files that were given to be published as they are, such as licences: only secrets are looked for.

    Raises:
        UserError: A file is larger than any such file.
    """
    found: list[str] = []
    words = re.compile(r"(?<![\w])(?:" + "|".join(map(re.escape, what.words)) + r")(?![\w])") if what.words else None
    for name in release_files(folder):
        text = _text(folder, name)
        shallow = name in VOCABULARIES or name in untouched
        hits = list(_secrets(text, what))
        if not shallow:
            hits += [(match.start(), f"the absolute path {match[0][:80]!r}") for match in _PATH.finditer(text)]
            if words is not None:
                hits += [(match.start(), what.words[match[0]]) for match in words.finditer(text)]
        said = dict.fromkeys(f"{name}:{text.count(chr(10), 0, at) + 1}: holds {thing}" for at, thing in sorted(hits))
        found += list(said)[:5]
    return found


def _secrets(text: str, what: Private) -> Iterator[tuple[int, str]]:
    for value, called in what.texts.items():
        if (at := text.find(value)) >= 0:
            yield at, called
    for pattern, called in _SECRETS:
        for match in pattern.finditer(text):
            yield match.start(), f"what looks like {called}"


def _text(folder: Path, name: str) -> str:
    """Return what of a file is searched."""
    path = folder / name
    if name.endswith(".safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return file.read(min(length, path.stat().st_size)).decode("utf-8", errors="replace")
    if problem := size_problem(path, name, TOKENIZER):
        raise UserError(problem)
    return path.read_bytes().decode("utf-8", errors="replace")
