"""Parquet files in the Hugging Face layout -> items.

Columns: `image` (or `img`: a struct of `bytes` and `path`, or bytes), `label` (a number, whose
names may stand in the schema's metadata as a ClassLabel, or a string), `text`. Others are ignored.
The images' bytes move into the spool, so that from there on all formats are one.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import InvalidInput
from workers.jobs.ingest.archives import MAX_BYTES, MAX_FILES, Kind, Member
from workers.jobs.ingest.folders import MAX_CLASSES
from workers.jobs.ingest.spool import (
    MAX_PATH_CHARS,
    Contents,
    Item,
    Refusals,
    Spool,
    TooLong,
)

IMAGE_COLUMNS = ("image", "img")
BATCH_ROWS = 64

Row = tuple[Item, int | str | None]


def read(
    members: list[Member], spool: Spool, refusals: Refusals, check_stop: Callable[[], None]
) -> Contents:
    """One item for each row, file by file in order of path.

    Raises InvalidInput: a file is damaged, has no column of images, or labels that make no classes.
    """
    rows: list[Row] = []
    names: list[str] = []
    for member in members:
        if member.kind != Kind.PARQUET:
            refusals.add(member.path, "lies beside Parquet files, which are the dataset")
            continue
        try:
            file = pq.ParquetFile(_opened(member, spool), pre_buffer=False)
            names = names or _label_names(file.schema_arrow)
            for row in _rows(member, file, spool, refusals):
                check_stop()
                rows.append(row)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InvalidInput(f"{member.path} cannot be read as Parquet: {error}") from error
    return _labelled(rows, names)


def _opened(member: Member, spool: Spool) -> pa.BufferReader:
    """The member's stretch of the spool, mapped: nothing is copied."""
    spool.flush()
    with spool.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = member.extent.offset
    return pa.BufferReader(pa.py_buffer(memoryview(mapped)[start : start + member.extent.length]))


def _rows(member: Member, file: pq.ParquetFile, spool: Spool, refusals: Refusals) -> Iterator[Row]:
    meta = file.metadata
    unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    if meta.num_rows > MAX_FILES or unpacked > spool.max_bytes:
        raise InvalidInput(f"{member.path} holds {meta.num_rows:,} rows of {unpacked:,} bytes")
    schema = file.schema_arrow
    image = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if image is None or not _holds_bytes(schema.field(image).type):
        raise InvalidInput(
            f"{member.path} has no column of images: {' or '.join(IMAGE_COLUMNS)}, bytes or a "
            f"struct with bytes; it has {', '.join(schema.names)[:200]}"
        )
    columns = [image, *({"label", "text"} & set(schema.names))]
    number = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
        for row in batch.to_pylist():
            path = f"{member.path}#{number}"
            number += 1
            data = row[image]
            if isinstance(data, dict):
                path = str(data.get("path") or path)[:MAX_PATH_CHARS]
                data = data["bytes"]
            if not data:
                refusals.add(path, "the row holds no bytes of an image")
                continue
            try:
                extent = spool.add([data], max_bytes=MAX_BYTES[Kind.IMAGE])
            except TooLong as error:
                refusals.add(path, str(error))
                continue
            text = row.get("text")
            yield Item(path, extent, text=None if text is None else str(text)), row.get("label")


def _holds_bytes(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return type_.get_field_index("bytes") >= 0 and _holds_bytes(type_.field("bytes").type)
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _label_names(schema: pa.Schema) -> list[str]:
    """The names of a ClassLabel, as the `datasets` library writes them into the metadata."""
    try:
        features: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _labelled(rows: list[Row], names: list[str]) -> Contents:
    """The rows with class numbers in place of their labels."""
    labels = {label for _, label in rows if label is not None and label != -1}
    if not labels:
        return Contents(items=[item for item, _ in rows])
    if all(isinstance(label, str) for label in labels):
        names = sorted(map(str, labels))
        numbers: dict[Any, int] = {name: number for number, name in enumerate(names)}
    elif all(isinstance(label, int) and 0 <= label < MAX_CLASSES for label in labels):
        names = names or [str(number) for number in range(max(map(int, labels)) + 1)]
        numbers = {number: number for number in range(len(names))}
    else:
        raise InvalidInput("the labels are neither all names nor all numbers from 0")
    if not labels <= numbers.keys() or len(names) > MAX_CLASSES:
        raise InvalidInput(f"the labels go beyond the {len(names)} class names, or {MAX_CLASSES:,}")
    return Contents(
        items=[
            Item(item.path, item.extent, label=numbers.get(label, -1), text=item.text)
            for item, label in rows
        ],
        class_names=names,
    )
