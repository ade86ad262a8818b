"""Rows of a Parquet file: in batches of bounded memory, only the columns that are mapped.

The footer is judged before a row is read: what is no Parquet, is cut, is encrypted, claims a row group beyond MAX_GROUP
or holds an extension type is refused. A cell that has no JSON form costs its row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import IO, TYPE_CHECKING, Any

from understudy.data.clean import Fault, scrub
from understudy.data.sources.cells import plain
from understudy.data.sources.reader import Bad, File, Row
from understudy.errors import DataError, extra

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

MAX_GROUP = 4 << 30
BATCH_BYTES = 4 << 20
BUFFER = 1 << 20


def read_parquet_rows(handle: IO[bytes], file: File, wanted: Collection[str]) -> Iterator[Row | Bad]:
    """Stream rows with the `wanted` columns, or with all where one is missing: the error then names what is there.

    Raises DataError FILE_CORRUPT, FILE_LOCKED; ResourceError EXTRA_MISSING.
    """
    with extra("parquet"):
        import pyarrow
        import pyarrow.parquet
    damage = (pyarrow.ArrowException, OSError)
    try:
        parquet = pyarrow.parquet.ParquetFile(handle, pre_buffer=False, buffer_size=BUFFER)
    except damage as e:
        raise _corrupt(file.label, e) from e
    _check_footer(parquet, file.label)
    names = parquet.schema_arrow.names
    columns = sorted(set(wanted)) if set(wanted) <= set(names) else None
    number = 0
    batches = parquet.iter_batches(_batch_rows(parquet), columns=columns, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except damage as e:
            raise _corrupt(file.label, e) from e
        if batch is None:
            return
        for values in _cells(batch):
            number += 1
            yield _row(f"{file.label}:row {number}", values, file)


def _check_footer(parquet: ParquetFile, label: str) -> None:
    footer = parquet.metadata
    for i in range(footer.num_row_groups):
        size = footer.row_group(i).total_byte_size
        if not 0 <= size <= MAX_GROUP:
            what = f"row group {i} of {size:,} bytes; the limit is {MAX_GROUP:,}"
            raise DataError("FILE_CORRUPT", label, what, "write it again with smaller row groups")
    for field in parquet.schema_arrow:
        if name := _extension(field):
            what = f"column {field.name!r} has the extension type {name}"
            raise DataError("FILE_CORRUPT", label, what, "write it with the plain storage type")


def _extension(field: pyarrow.Field) -> str:
    """The name of an extension type in this field or below it."""
    import pyarrow

    declared = (field.metadata or {}).get(b"ARROW:extension:name")
    if declared:
        return str(declared.decode("utf-8", "replace"))
    if isinstance(field.type, pyarrow.BaseExtensionType):
        return str(field.type.extension_name)
    below = (field.type.field(i) for i in range(field.type.num_fields))
    return next((name for name in map(_extension, below) if name), "")


def _batch_rows(parquet: ParquetFile) -> int:
    footer = parquet.metadata
    total = sum(int(footer.row_group(i).total_byte_size) for i in range(footer.num_row_groups))
    return max(1, min(1024, BATCH_BYTES // max(1, total // max(1, int(footer.num_rows)))))


def _cells(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch; a value that cannot be made is the Fault itself."""
    names = batch.schema.names
    columns = [_column(batch.column(i)) for i in range(len(names))]
    for i in range(batch.num_rows):
        yield {name: column[i] for name, column in zip(names, columns, strict=True)}


def _column(array: pyarrow.Array) -> list[Any]:
    try:
        return list(array.to_pylist())
    except (ValueError, OverflowError, UnicodeDecodeError):
        return [_cell(value) for value in array]


def _cell(value: pyarrow.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as e:
        return Fault("TEXT_ENCODING", f"byte {e.start} of the cell is not UTF-8")
    except (ValueError, OverflowError) as e:
        return Fault("NUM_RANGE", f"a {value.type} that no calendar or number here holds ({e})")


def _row(where: str, values: dict[str, Any], file: File) -> Row | Bad:
    size = sum(len(v) for v in values.values() if isinstance(v, (str, bytes)))
    if size > file.limit:
        return Bad(where, -1, "ROW_TOO_LONG", f"{size} characters; the limit is {file.limit}")

    def read() -> dict[str, Any]:
        cells = {}
        for name, value in values.items():
            if isinstance(value, Fault):
                raise Fault(value.reason, f"{name!r}: {value.detail}")
            cells[name] = plain(name, value)
        return dict(scrub(cells, file.notes))

    return file.parse(where, -1, read)


def _corrupt(label: str, error: Exception) -> DataError:
    text = str(error).split("\n")[0][:200]
    if "encrypt" in text.lower():
        return DataError("FILE_LOCKED", label, text, "write it without encryption")
    return DataError("FILE_CORRUPT", label, text, "write the file again; a whole one starts and ends with PAR1")
