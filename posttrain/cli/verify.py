"""`posttrain verify`: whether a release is what was released."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain.errors import EXIT_USER_ERROR, UserError


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A release folder, or one that holds several.", show_default=False)
    ],
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The public key (PEM) that it must be signed with.")
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option("--identity", metavar="WHO", help="Who must have signed by Sigstore: an e-mail address or a URL."),
    ] = None,
    issuer: Annotated[
        str | None, typer.Option("--issuer", metavar="URL", help="Who vouches for the identity at Sigstore.")
    ] = None,
) -> None:
    """Check a release: every digest, the signature, the chain of manifests, and that the model is the one recorded.

    Says what is wrong by file, and exits with 2 then.
    """
    from posttrain.verify.release import release_folders
    from posttrain.verify.release import verify as check

    if (identity is None) != (issuer is None):
        raise UserError("--identity and --issuer belong together: give both, or --key")
    if key is not None and identity is not None:
        raise UserError("--key and --identity: a release has one signature; give one of the two")
    wrong = 0
    for release in release_folders(folder):
        report = check(release, key=key, identity=identity, issuer=issuer)
        for problem in report.problems:
            print(f"{release}: {problem}")
        for note in report.notes:
            print(f"{release}: note: {note}")
        found = f"{len(report.problems)} problem{'' if len(report.problems) == 1 else 's'}"
        outcome = found if report.problems else "in order"
        print(f"{release}: {outcome} ({report.files} files, {report.bytes / 1e6:,.1f} MB read)")
        wrong += bool(report.problems)
    if wrong:
        raise typer.Exit(EXIT_USER_ERROR)
