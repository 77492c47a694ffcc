"""The one kind of error that a user of posttrain can put right."""

from __future__ import annotations

import signal as signals
from collections.abc import Sequence

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Something in the recipe, the data or the command that the user can correct.

    The command line prints each problem on a line of its own, without a traceback, and exits with
    `EXIT_USER_ERROR`. A problem says what is wrong, where, and what to do about it.

    Args:
        problems: One message, or several that were found together.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: list[str] = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class Submitted(Exception):
    """The work has been handed to a cluster's queue; the same command goes on once it is done.

    Args:
        message: What was submitted, and where it can be watched.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}; once the jobs are done, the same command goes on from there")


class Interrupted(Exception):
    """A signal stopped the work, and what had been done is saved; the same command goes on from there.

    Args:
        message: What was stopped, and where.
        signal: The number of the signal.
    """

    def __init__(self, message: str, signal: int) -> None:
        self.signal = signal
        super().__init__(f"{message}; the same command goes on from there")

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, by which schedulers end what they mean to go on with; otherwise that of the signal."""
        return 0 if self.signal == signals.SIGTERM else 128 + self.signal
