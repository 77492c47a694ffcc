"""Answers and scores kept durably, so that none is paid for twice: an SQLite file, written by a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from posttrain.data.generate.loops import call_in
from posttrain.data.generate.requests import Answer
from posttrain.errors import UserError

GATHER = 0.005  # seconds that a commit waits for others to join: adds to each answer's latency, so it is short
GROUP = 256  # answers that are committed without waiting for more
_APPLICATION = 0x70747261  # "ptra", in the header of the file
_VERSION = 1


class Store:
    """A map from 16-byte keys to answers in one file, for one process.

    The file is in WAL mode with an exclusive lock, so that the index of the log is in this process and not in shared
    memory, which network file systems do not offer. `synchronous=NORMAL`: a commit is in the hands of the operating
    system, so a killed process loses nothing; a power cut can lose the latest answers, which are then asked for again,
    but cannot damage the file. That spares a wait for the disk at every commit. Memory does not grow with the file.

    Args:
        path: The file; it is made if it is not there, and so is its folder.

    Raises:
        UserError: Another process uses the file, or it is not such a file, or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._connection = self._opened()
        self._change = threading.Condition()
        self._pending: dict[bytes, tuple[Answer, list[Callable[[UserError | None], None]]]] = {}
        self._writing: dict[bytes, Answer] = {}
        self._problem: UserError | None = None
        self._closing = False
        self._writer = threading.Thread(target=self._write, name=f"store {self.path.name}", daemon=True)
        self._writer.start()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return how many answers are committed."""
        try:
            return int(self._connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def get(self, key: bytes) -> Answer | None:
        """Return the answer under a key, or None.

        Raises:
            UserError: The file is damaged.
        """
        with self._change:
            if key in self._pending:
                return self._pending[key][0]
            if key in self._writing:
                return self._writing[key]
        try:
            found = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return None if found is None else _read(found[0])
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._damaged(error) from error

    async def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; returns once it is committed. A key that has an answer keeps that one.

        Raises:
            UserError: It cannot be written, as when the disk is full.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def resolve(problem: UserError | None) -> None:
            if not done.done():
                done.set_result(None) if problem is None else done.set_exception(problem)

        with self._change:
            if self._problem is not None:
                raise UserError(self._problem.problems)
            if self._closing:
                raise RuntimeError("the store is closed")
            _, waiting = self._pending.setdefault(key, (answer, []))
            waiting.append(lambda problem: call_in(loop, lambda: resolve(problem)))
            if len(self._pending) in (1, GROUP):
                self._change.notify()
        await done

    def close(self) -> None:
        """Commit what is left and let go of the file."""
        with self._change:
            if self._closing:
                return
            self._closing = True
            self._change.notify()
        self._writer.join()
        self._connection.close()

    def _write(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._pending or self._closing)
                if not self._pending:
                    return
                self._change.wait_for(lambda: len(self._pending) >= GROUP or self._closing, GATHER)
                group, self._pending = self._pending, {}
                self._writing = {key: answer for key, (answer, _) in group.items()}
            problem = self._commit()
            with self._change:
                self._writing = {}
                self._problem = self._problem or problem
            for _, waiting in group.values():
                for resolve in waiting:
                    resolve(problem)

    def _commit(self) -> UserError | None:
        rows = [(key, _written(answer)) for key, answer in self._writing.items()]
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            # If that fails too, the first error says more; and whoever waits is to be told, whatever happens here.
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            return UserError(
                f"{self.path}: the answers cannot be written ({error}); make room on the disk or move the run to "
                "another one, then give the same command again: what was answered before is kept"
            )
        return None

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Its own transactions (`isolation_level=None`); reads here and writes of the thread share one connection,
        # because the exclusive lock keeps out a second one even of the same process.
        connection = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            # Before the first access: only then is the index of the log kept out of shared memory.
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            made = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables and (made, version) != (_APPLICATION, _VERSION):
                raise UserError(
                    f"{self.path}: this is not a store of answers that this version can read; move the file away "
                    "and the answers are asked for anew"
                )
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer BLOB NOT NULL)")
            connection.execute(f"PRAGMA application_id={_APPLICATION}")
            connection.execute(f"PRAGMA user_version={_VERSION}")
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            connection.close()
            if "locked" in str(error) or "busy" in str(error):
                raise UserError(
                    f"{self.path}: another process is using this store of answers; wait for it to end, or give this "
                    "run another folder"
                ) from None
            raise self._damaged(error) from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise self._damaged(error) from error
        except UserError:
            connection.close()
            raise
        return connection

    def _damaged(self, error: Exception) -> UserError:
        return UserError(
            f"{self.path}: the store of answers cannot be read ({error}); restore the file from a copy, or move it "
            "away with its -wal file: the answers are then asked for anew"
        )


def _written(answer: Answer) -> bytes:
    # Half a surrogate pair gets through JSON escapes, and has to come back as it was.
    return json.dumps(vars(answer), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _read(written: bytes) -> Answer:
    return Answer(**json.loads(written.decode("utf-8", "surrogatepass")))
