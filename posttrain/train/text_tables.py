"""Pieces of text from files of tables: Parquet, Arrow and JSON lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from posttrain.data.files import DataFile
from posttrain.errors import UserError
from posttrain.recipe.schema import TextSource
from posttrain.train.text_files import PIECE_BYTES, PIECE_ROWS, Piece, Pieces, Place

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 256  # rows that are read together: a document may be long


def parquet_pieces(file: DataFile, number: int, offset: int, column: str) -> Pieces:
    """Read the texts of a Parquet file from a row on; row groups before it are not touched."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            require_column(table.schema_arrow.names, column, file.name)
            yield from gather(_row_groups(table, offset, column), file.name, number, offset)
    except pa.ArrowException as error:
        yield _damaged(file, number, error)
    except OSError as error:  # pyarrow's own word for a damaged page
        if error.errno is not None:
            raise UserError(f"{file.path}: cannot be read: {error.strerror}") from error
        yield _damaged(file, number, error)


def _row_groups(table: Any, offset: int, column: str) -> Iterator[pa.Array]:
    before = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if before + rows > offset:
            skip = max(0, offset - before)
            for batch in table.iter_batches(AT_ONCE, row_groups=[group], columns=[column], use_threads=False):
                if skip < batch.num_rows:
                    yield batch.column(0).slice(skip)
                skip = max(0, skip - batch.num_rows)
        before += rows


def record_pieces(file: DataFile, number: int, offset: int, source: TextSource) -> Pieces:
    """Read the texts of an Arrow file or a JSON list from a row on; a JSON list is read whole.

    Raises:
        UserError: If it cannot be read.
    """
    from posttrain.data.chunks import Rows
    from posttrain.data.read import read_source

    def arrays() -> Iterator[Any]:
        import pyarrow as pa

        for chunk in read_source(replace(source, path=str(file.path), config=None)).chunks:
            if chunk.first + chunk.count <= offset:
                continue
            if isinstance(chunk, Rows):
                require_column(chunk.batch.schema.names, source.column, file.name)
                texts = chunk.batch.column(source.column)
            else:
                rows = [item if isinstance(item, dict) else {} for item in chunk.items()]
                for row in rows[:1]:
                    require_column(list(row), source.column, file.name)
                texts = pa.array([row.get(source.column) for row in rows])
            yield texts.slice(max(0, offset - chunk.first))

    yield from gather(arrays(), file.name, number, offset)


def gather(arrays: Iterator[pa.Array], name: str, number: int, offset: int) -> Pieces:
    """Put texts together to pieces.

    Args:
        arrays: The texts from the row `offset` on.
        name: What the file is called.
        number: Its number in the order of reading.
        offset: The row that the first text is of.
    """
    items: list[tuple[int, Any]] = []
    size = 0
    for array in arrays:
        items.extend(enumerate(array.to_pylist(), offset))
        offset += len(array)
        size += array.nbytes
        if size >= PIECE_BYTES or len(items) >= PIECE_ROWS:
            yield Piece("rows", name, items, Place(number, offset))
            items, size = [], 0
    yield Piece("rows", name, items, Place(number + 1))


def require_column(names: list[str], column: str, file: str) -> None:
    """Stop where a table has no column of the name that the recipe gives."""
    if column not in names:
        raise UserError(f"cpt.text: the rows of {file} have no column {column!r}; they have {', '.join(sorted(names))}")


def _damaged(file: DataFile, number: int, error: Exception) -> Piece:
    return Piece("rows", file.name, [], Place(number + 1), f"not a whole table: {str(error).strip().splitlines()[0]}")
