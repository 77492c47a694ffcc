"""`SHA256SUMS`: the digest of every file of a release, as `sha256sum -c` reads it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from posttrain.errors import UserError
from posttrain.release.limits import read_text
from posttrain.release.names import file_problem
from posttrain.stages.digest import sha256_file

SUMS = "SHA256SUMS"
BUILD = "build.json"  # times, hardware and all else that no two builds share
SIGNATURE = "model.sig"
LEFT_OUT = (SUMS, BUILD, SIGNATURE)
# What git and the hub's downloader put beside a release.
FOREIGN = (".git", ".gitattributes", ".cache")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def release_files(folder: Path) -> list[str]:
    """Return the relative names of all files in a folder, links too, in order, without those of `FOREIGN`."""
    found = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent).relative_to(folder)
        if here == Path():
            folders[:] = [name for name in folders if name not in FOREIGN]
            names = [name for name in names if name not in FOREIGN]
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [(here / name).as_posix() for name in (*names, *links)]
    return sorted(found)


def write_sums(folder: Path) -> str:
    """Write the digests of all files but `LEFT_OUT`, in the order of their names; return the text."""
    names = [name for name in release_files(folder) if name not in LEFT_OUT]
    text = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)
    (folder / SUMS).write_text(text, encoding="utf-8")
    return text


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests that a release states, by name.

    Raises:
        UserError: There is no such file, or it is not as `write_sums` writes it: a line is malformed, a name is given
            twice or leads out of the folder.
    """
    text = read_text(folder / SUMS, SUMS)
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            problems.append(f"{SUMS}:{number}: is not a digest and a name")
        elif problem := file_problem(match[2]):
            problems.append(f"{SUMS}:{number}: {problem}")
        elif match[2] in found:
            problems.append(f"{SUMS}:{number}: {match[2]} is given twice")
        else:
            found[match[2]] = match[1]
    if problems:
        raise UserError(problems)
    return found
