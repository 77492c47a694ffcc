"""Where the text of a licence is: in a file, or in a repository of the hub, from which it is fetched."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from posttrain.assets import is_hub_file, locate
from posttrain.errors import UserError

_ON_HUB = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w.-]+))?/([^\\]+)")


def text_file(written: str) -> Path:
    """Return the file of a licence's text; of one on the hub its copy in the hub's cache, where it is fetched to.

    Raises:
        UserError: It is written in a way that names no file of a repository, or it cannot be fetched.
    """
    if not is_hub_file(written):
        return Path(locate(written)).expanduser()
    match = _ON_HUB.fullmatch(written)
    if match is None or ".." in PurePosixPath(match[3]).parts:
        raise UserError(
            f"release.license_files: {written} names no file on the hub; write hf://OWNER/NAME/FILE, or "
            "hf://OWNER/NAME@REVISION/FILE"
        )
    from posttrain.planning.hub import NotFetched, fetch_file

    repository, revision, name = match.groups()
    try:
        return fetch_file(repository, name, revision)
    except NotFetched as error:
        raise UserError(
            f"release.license_files: {written} cannot be fetched ({error}); accept the terms of the repository and set "
            "HF_TOKEN if it asks for that, or download the file and name it here"
        ) from error
