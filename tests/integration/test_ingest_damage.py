"""Damage anywhere in an upload ends in a refusal or in InvalidInput, never in another error."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared import decoding, idx
from shared.errors import InvalidInput, UnsafeImage
from tests.uploads import picture, png, saved, tar_of, zip_of
from workers.jobs.ingest import archives, folders, parquet
from workers.jobs.ingest import idx as idx_files
from workers.jobs.ingest.archives import Kind
from workers.jobs.ingest.spool import Refusals, Spool


def parquet_file() -> bytes:
    images = [{"bytes": png(number), "path": "x.png"} for number in range(3)]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "a"], "text": ["é"] * 3}), buffer)
    return buffer.getvalue()


FOLDER = {
    "a/1.png": png(1),
    "b/2.jpg": saved(picture(2), "JPEG"),
    "b/3.webp": saved(picture(3), "WEBP"),
    "metadata.jsonl": b'{"file_name": "a/1.png", "text": "one"}\n',
}
IDX = {
    "images.gz": gzip.compress(idx.encode(np.zeros((3, 8, 8), np.uint8))),
    "labels": idx.encode(np.arange(3, dtype=np.uint8)),
    "classes.txt": b"a\nb\nc",
}
UPLOADS = {
    "zip": zip_of(FOLDER),
    "tar": tar_of(FOLDER),
    "tar.gz": tar_of(FOLDER, "gz"),
    "tar.bz2": tar_of(FOLDER, "bz2"),
    "tar.xz": tar_of(FOLDER, "xz"),
    "idx": tar_of(IDX),
    "parquet": parquet_file(),
}

damage = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))


def damaged(data: bytes, damages: list[tuple[float, bytes]], keep: float) -> bytes:
    changed = bytearray(data)
    for place, new in damages:
        start = int(place * len(changed))
        changed[start : start + len(new)] = new
    return bytes(changed[: max(1, int(keep * len(changed)))])


def read_whole(data: bytes, folder: Path) -> None:
    """Everything that an ingest does with an upload, up to the pixels."""
    upload = folder / "upload"
    upload.write_bytes(data)
    refusals = Refusals()
    with Spool(folder / "spool", packed_bytes=len(data)) as spool:
        members = archives.unpack(upload, spool, refusals, lambda: None)
        kinds = {member.kind for member in members}
        if Kind.PARQUET in kinds:
            contents = parquet.read(members, spool, refusals, lambda: None)
        elif Kind.IDX in kinds:
            contents = idx_files.read(members, spool, refusals)
        else:
            contents = folders.read(members, spool, refusals)
        for item in contents.items:
            content = spool.read(item.extent)
            if item.shape is None:
                try:
                    decoding.decode(content, size=8, channels=3, fit="crop")
                except UnsafeImage as error:
                    refusals.add(item.path, error.detail)


@pytest.mark.parametrize("upload", UPLOADS)
@given(damages=st.lists(damage, max_size=4), keep=st.just(1.0) | st.floats(0, 1, exclude_max=True))
@hypothesis_settings(max_examples=150)
def test_damage_is_refused(upload: str, damages: list[tuple[float, bytes]], keep: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            read_whole(damaged(UPLOADS[upload], damages, keep), Path(folder))
        except InvalidInput:
            return


@pytest.mark.parametrize("upload", UPLOADS)
def test_without_damage_all_is_read(upload: str, tmp_path: Path) -> None:
    read_whole(UPLOADS[upload], tmp_path)
