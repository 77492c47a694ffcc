"""Checkpoints to go on from: written apart, looked at, and only then put among the others.

A checkpoint is written to `.saving/`, flushed to the disk, given a mark that lists its files and what it was made from,
and renamed to `checkpoint-STEP`. So a folder of that name is whole, and an older one goes only when a newer one is.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain.differences import changed_parts, describe
from posttrain.durable import sync_folder
from posttrain.errors import UserError

COMPLETE = "complete"  # the mark of a checkpoint that was written to its end
SAVING = ".saving"
STATE = "trainer_state.json"
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch and safetensors say of a write that failed; neither keeps the error's number.
_WRITE_FAILED = ("no space left", "quota exceeded", "file too large", "failed writing", "unexpected pos", "i/o error")


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step after which a checkpoint was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def found(folder: Path) -> list[Path]:
    """Return the checkpoint folders, whole or not, the oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=step_of)


def publish(folder: Path, step: int, limit: int | None, record: Mapping[str, Any]) -> Path:
    """Put what was written to `.saving/checkpoint-STEP` among the checkpoints, and remove the oldest beyond a limit.

    To be called by one process, when all have written their part.

    Args:
        folder: Where the checkpoints are.
        step: The optimiser step.
        limit: How many to keep; None or 0 keeps all.
        record: What the mark says besides the files: `parts` of the stage's fingerprint, `world_size`, `sharding`.

    Raises:
        OSError: If a file cannot be flushed; the checkpoints that are there stay.
        RuntimeError: If a file that resuming needs was not written.
    """
    name = f"checkpoint-{step}"
    written, final = folder / SAVING / name, folder / name
    if not (written / STATE).is_file():
        raise RuntimeError(f"{name} was saved without {STATE}")
    files = {}
    for path in sorted(written.rglob("*")):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
            files[path.relative_to(written).as_posix()] = path.stat().st_size
        else:
            sync_folder(path)
    with (written / COMPLETE).open("w", encoding="utf-8") as handle:
        json.dump({**record, "files": files}, handle, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    sync_folder(written)
    if final.exists():  # of the same step: left by a run whose checkpoint before it was the last good one
        shutil.rmtree(final)
    os.replace(written, final)
    (folder / SAVING).rmdir()
    sync_folder(folder)
    if limit:
        for old in found(folder)[:-limit]:
            shutil.rmtree(old)
    return final


def damage(checkpoint: Path) -> str | None:
    """Say what is wrong with a marked checkpoint, or None: files that are missing or have another size."""
    try:
        files = read_mark(checkpoint)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"its file `{COMPLETE}` cannot be read"
    for name, size in files.items():
        try:
            now = (checkpoint / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if now != size:
            return f"{name} has {now:,} bytes instead of {size:,}"
    return None


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """Return what `publish` wrote into a checkpoint.

    Raises:
        OSError: If there is no mark.
        ValueError: If it is not JSON.
    """
    return dict(json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))


def last_checkpoint(folder: Path, record: Mapping[str, Any], say: Callable[[str], None]) -> Path | None:
    """Return the latest checkpoint to go on from, and remove those that are not whole.

    To be called by one process, before any other looks at the folder.

    Args:
        folder: Where the checkpoints are.
        record: What the run is made from, as `publish` takes it.
        say: Prints a line, for each damaged checkpoint and where the number of processes is another one.

    Raises:
        UserError: If the latest whole one was made from something else; the differences are named.
    """
    shutil.rmtree(folder / SAVING, ignore_errors=True)
    for checkpoint in reversed(found(folder)):
        if not (checkpoint / COMPLETE).exists():
            shutil.rmtree(checkpoint)
        elif wrong := damage(checkpoint):
            say(f"{checkpoint.name} is damaged ({wrong}) and removed; an earlier one takes its place, if there is one")
            shutil.rmtree(checkpoint)
        else:
            _require_same(checkpoint, record, say)
            return checkpoint
    return None


def _require_same(checkpoint: Path, record: Mapping[str, Any], say: Callable[[str], None]) -> None:
    mark = read_mark(checkpoint)
    old, new = mark.get("parts", {}), record["parts"]
    advice = f"remove {checkpoint.parent} to begin anew"
    if changed := changed_parts(old, new):
        shown = "; ".join(describe(part, old, new, {}) for part in changed[:5])
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UserError(f"{checkpoint} was saved by another recipe ({shown}{more}); {advice}")
    if mark.get("sharding") != record["sharding"]:
        raise UserError(
            f"{checkpoint} was saved with sharding {mark.get('sharding')!r}, and this run has {record['sharding']!r}; "
            f"launch it as before (launch.config), or {advice}"
        )
    if mark.get("world_size") != record["world_size"]:
        say(
            f"{checkpoint.name} was saved by {mark.get('world_size')} processes and {record['world_size']} go on: "
            "the result will not be that of an uninterrupted run to the last bit"
        )


def at_the_end(checkpoint: Path) -> bool:
    """Say whether a checkpoint is of the last step, so that nothing is left to train."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


@contextmanager
def disk_problems_told(folder: Path, step: int) -> Iterator[None]:
    """Turn a write that the disk refused into a `UserError` that says what is still good; other errors pass.

    What was written of the checkpoint is removed, which frees its space.
    """
    try:
        yield
    except Exception as error:
        if not disk_refused(error):
            raise
        shutil.rmtree(folder / SAVING, ignore_errors=True)
        problem = f"checkpoint-{step} could not be saved: {_room(folder, error)}; {_still_good(folder)}"
        raise UserError(problem) from error


def disk_refused(error: BaseException) -> bool:
    """Say whether an error is a write that failed because the disk, a quota or a limit is full."""
    if isinstance(error, OSError) and error.errno in _DISK_IS_FULL:
        return True
    kinds = (OSError, RuntimeError) if type(error).__name__ != "SafetensorError" else (Exception,)
    return isinstance(error, kinds) and any(text in str(error).lower() for text in _WRITE_FAILED)


def _room(folder: Path, error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        reason = os.strerror(error.errno)
    elif type(error).__name__ == "SafetensorError":
        reason = str(error).splitlines()[0]
    else:  # torch says at which line of its own source
        reason = "the disk, a quota or a limit left no room for all of a file"
    return f"{reason}; {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free for {folder}"


def _still_good(folder: Path) -> str:
    whole = [checkpoint for checkpoint in found(folder) if (checkpoint / COMPLETE).exists()]
    last = f"{whole[-1].name} is whole, and the same command goes on from it" if whole else "there is none before it"
    return f"{last}; make room, lower save_total_limit, or choose another output_dir"
