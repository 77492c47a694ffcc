"""The command line: one file a subcommand, argument parsing and printing only."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from posttrain.errors import EXIT_USER_ERROR, Interrupted, Submitted, UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done, handed to a cluster's queue, or a stage stopped by SIGTERM with everything saved. 2: something that the
    user can correct; each problem is a line on standard error. 130: stopped by Ctrl-C. Anything else is a bug and comes
    with its traceback.
    """
    from posttrain.cli.app import app

    speaks = os.environ.get("RANK", "0") == "0"  # of several processes the first one speaks for all
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True, prog_name="posttrain")
    except UserError as error:
        if speaks:
            for problem in error.problems:
                print(f"posttrain: error: {problem}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Submitted as error:
        print(f"posttrain: {error}")
    except Interrupted as error:
        if speaks:
            print(f"posttrain: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGINT and speaks:  # what typer makes of a KeyboardInterrupt
            print("posttrain: interrupted; the same command goes on from what was saved", file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0
