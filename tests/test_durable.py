"""Files that have their name only when they are whole."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from posttrain.durable import write_arrow


def test_an_arrow_stream_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "part.arrow"
    table = pa.table({"row": [1, 2, 3]}).replace_schema_metadata({b"posttrain": b"counts"})
    with monkeypatch.context() as patch:

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_arrow(table, target)
        assert not target.exists()
    write_arrow(table, target)
    assert [path.name for path in tmp_path.iterdir()] == ["part.arrow"], "what was cut off is written over"
    with pa.memory_map(str(target)) as file:
        assert pa.ipc.open_stream(file).read_all().equals(table, check_metadata=True)
