"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shlex
import socket
import sys
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from posttrain.errors import UserError
from posttrain.stages.folder import make_folder, remove_empty
from posttrain.stages.ranks import RANKS

LOCK = ".lock"
OWNER_VARIABLE = "POSTTRAIN_LOCK_OWNER"


class Lock:
    """An exclusive `flock` on `.lock`, which the system releases however the process ends.

    A process started by the owner is let in by the owner's token in its environment; the owner hands it the open file
    as well (`descriptor`), so that the lock outlives an owner that is killed while its child goes on.

    Args:
        output: The output folder; it is made.

    Raises:
        UserError: On entering, if another run has it, and the message says which; or if nothing can be written there.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._file: int | None = None
        self._made: list[Path] = []
        self.token = ""
        self.note: str | None = None

    @property
    def descriptor(self) -> int | None:
        """The open lock file, to be passed on to a child; None where the lock is another process's."""
        return self._file

    def __enter__(self) -> Lock:
        while not self._take():
            self._close()
        return self

    def _take(self) -> bool:
        """Take the lock or raise; return False if the file was removed meanwhile, so that it locks nothing."""
        path = self._output / LOCK
        try:
            self._made = make_folder(self._output) or self._made
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            remove_empty(self._made)
            raise UserError(
                f"output_dir: {self._output} cannot be written to ({error.strerror}); choose another output_dir=..."
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
                self.note = f"{self._output}: this file system has no locks; do not start a second run here"
            else:
                self._enter_as_child()
                return True
        try:
            if os.stat(path).st_ino != os.fstat(self._file).st_ino:
                return False
        except FileNotFoundError:
            return False
        self.token = secrets.token_hex(16)
        self._describe()
        return True

    def _enter_as_child(self) -> None:
        owner = self._owner()
        self._close()
        if owner.get("token") and owner["token"] == os.environ.get(OWNER_VARIABLE):
            self.token = owner["token"]
            return
        raise UserError(
            f"another posttrain run (pid {owner.get('pid', '?')}, host {owner.get('host', '?')}, started "
            f"{owner.get('started', '?')}) is using {self._output}; wait for it or choose another output_dir=..."
        )

    def _owner(self) -> dict[str, str]:
        assert self._file is not None
        try:
            content = json.loads(os.pread(self._file, 1 << 16, 0))
        except ValueError:  # the owner has not written it yet
            return {}
        return content if isinstance(content, dict) else {}

    def _describe(self) -> None:
        assert self._file is not None
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": shlex.join(sys.argv),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "token": self.token,
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, (json.dumps(owner, indent=2) + "\n").encode(), 0)

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._file is not None and _holds_only(self._output, LOCK, RANKS):
            (self._output / LOCK).unlink(missing_ok=True)  # a failed run leaves no empty folder behind
            remove_empty(self._made)  # where there is `.ranks` it goes later, and the folder with it
        self._close()


def _holds_only(folder: Path, *names: str) -> bool:
    return {path.name for path in folder.iterdir()} <= set(names)
