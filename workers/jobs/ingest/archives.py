"""A hostile upload -> its files, in one spool. What the files mean is not known here.

Formats are told by content, never by name. Nothing is written under a name from the archive. A file
with a bad path, or an archive within the archive, is refused; an upload that breaks a limit as a
whole, or cannot be read to its end, is refused as a whole.
"""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

from shared import idx
from shared.errors import InvalidInput
from workers.jobs.ingest import containers
from workers.jobs.ingest.containers import CHUNK_BYTES, Readable, Walk
from workers.jobs.ingest.spool import MAX_UNPACKED_BYTES, Extent, Refusals, Spool, TooLong

MAX_FILES = 500_000
MAX_PATH_CHARS = 1024


class Kind(StrEnum):
    """What a file is, by its first bytes."""

    IMAGE = "image"
    IDX = "idx"
    PARQUET = "parquet"
    TEXT = "text"
    ZIP = "zip"
    TAR = "tar"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ARCHIVE = "archive"
    OTHER = "other"


MAX_BYTES = {
    Kind.IMAGE: 64 * 2**20,
    Kind.TEXT: 64 * 2**20,
    Kind.IDX: MAX_UNPACKED_BYTES,
    Kind.PARQUET: MAX_UNPACKED_BYTES,
}
"""What is kept of an archive, and how large one such file may be."""

MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", Kind.IMAGE),
    (0, b"\xff\xd8\xff", Kind.IMAGE),
    (8, b"WEBP", Kind.IMAGE),
    (0, b"PAR1", Kind.PARQUET),
    (0, b"PK\x03\x04", Kind.ZIP),
    (0, b"PK\x05\x06", Kind.ZIP),
    (0, b"\x1f\x8b", Kind.GZIP),
    (0, b"BZh", Kind.BZIP2),
    (0, b"\xfd7zXZ\x00", Kind.XZ),
    (257, b"ustar", Kind.TAR),
    (0, b"7z\xbc\xaf\x27\x1c", Kind.ARCHIVE),
    (0, b"Rar!", Kind.ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", Kind.ARCHIVE),  # zstd
)
"""(offset, the bytes there, what that is)"""
HEAD_BYTES = 512  # hold every magic

NESTED = frozenset({Kind.ZIP, Kind.TAR, Kind.GZIP, Kind.BZIP2, Kind.XZ, Kind.ARCHIVE})
TEXT_NAMES = (".txt", "metadata.jsonl")
PAPERS = ("README", "LICENSE", "LICENCE", "COPYING")

INFLATE: dict[Kind, containers.Inflate] = {
    Kind.TAR: containers.plain,
    Kind.GZIP: containers.gunzip,
    Kind.BZIP2: containers.bunzip,
    Kind.XZ: containers.unxz,
}

# What zipfile, tarfile and the decompressors raise on damaged input.
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    RuntimeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an upload. `path` was checked, and is only a name."""

    path: str
    kind: Kind
    extent: Extent


def sniff(head: bytes, path: str = "") -> Kind:
    """What a file is, by its first 512 bytes; captions have no magic, so they go by name."""
    if idx.is_idx(head):
        return Kind.IDX
    for offset, magic, kind in MAGIC:
        if head.startswith(magic, offset):
            return kind
    return Kind.TEXT if path.endswith(TEXT_NAMES) else Kind.OTHER


def unpack(
    upload: Path, spool: Spool, refusals: Refusals, check_stop: Callable[[], None]
) -> list[Member]:
    """Every file of the upload that may matter, in order of path.

    Raises:
        InvalidInput: the upload is of no known format, damaged, or larger than it may be.
    """
    with upload.open("rb") as file:
        kind = sniff(file.read(HEAD_BYTES))
    members: dict[str, Member] = {}
    num_files = 0
    try:
        for path, opened in _walk(kind, upload, spool, refusals):
            check_stop()
            num_files += 1
            if num_files > MAX_FILES:
                raise InvalidInput(f"the upload holds more than {MAX_FILES:,} files")
            if reason := _unsafe_path(path):
                refusals.add(path, reason)
            elif _is_junk(path):
                continue
            elif path in members:
                refusals.add(path, "a second file of this path")
            else:
                try:
                    with opened() as stream:
                        members[path] = _kept(path, stream, spool)
                except _Refused as error:
                    refusals.add(path, str(error))
    except READ_ERRORS as error:
        raise InvalidInput(f"the upload cannot be read as {kind}: {error}") from error
    return [members[path] for path in sorted(members)]


class _Refused(Exception):
    """This one file is not kept."""


def _walk(kind: Kind, upload: Path, spool: Spool, refusals: Refusals) -> Walk:
    if kind == Kind.ZIP:
        return containers.walk_zip(upload, refusals)
    if kind in (Kind.PARQUET, Kind.IDX) or (kind == Kind.GZIP and _is_idx_within(upload)):
        return iter([("upload", lambda: upload.open("rb"))])
    if kind in INFLATE:
        return containers.walk_tar(upload, refusals, INFLATE[kind], spool.max_bytes)
    raise InvalidInput(
        "the upload is no zip, no tar (plain, gz, bz2 or xz), no Parquet and no IDX file"
    )


def _is_idx_within(upload: Path) -> bool:
    with upload.open("rb") as file:
        return idx.is_idx(next(_gunzipped([file.read(CHUNK_BYTES)]), b""))


def _kept(path: str, stream: Readable, spool: Spool) -> Member:
    """One file, put into the spool. Raises _Refused."""
    try:
        chunks: Iterator[bytes] = iter(lambda: stream.read(CHUNK_BYTES), b"")
        head = next(chunks, b"")
        kind = sniff(head, path)
        if kind == Kind.GZIP:  # as IDX files come
            chunks = _gunzipped(chain([head], chunks))
            head = next(chunks, b"")
            kind = Kind.IDX if idx.is_idx(head) else Kind.ARCHIVE
        if kind in NESTED:
            raise _Refused("an archive within the archive")
        if kind not in MAX_BYTES:
            raise _Refused("not a PNG, JPEG, WebP, IDX or Parquet file")
        return Member(path, kind, spool.add(chain([head], chunks), max_bytes=MAX_BYTES[kind]))
    except TooLong as error:
        raise _Refused(str(error)) from error
    except READ_ERRORS as error:
        raise _Refused(f"cannot be unpacked: {error}"[:200]) from error


def _gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with a gzip header
    for packed in chunks:
        rest = packed
        while rest and not inflater.eof:
            if data := inflater.decompress(rest, CHUNK_BYTES):
                yield data
            rest = inflater.unconsumed_tail
    if not inflater.eof:
        raise EOFError("the gzip stream is cut short")


def _is_junk(path: str) -> bool:
    """Hidden files, those that macOS adds, and papers: nobody misses them, so nobody is told."""
    parts = path.split("/")
    hidden = any(part.startswith(".") and part != "." for part in parts)
    return hidden or parts[0] == "__MACOSX" or parts[-1].upper().startswith(PAPERS)


def _unsafe_path(path: str) -> str | None:
    if not path:
        return "a file without a name"
    if len(path) > MAX_PATH_CHARS:
        return "the path is too long"
    if path.startswith("/") or "\\" in path or path[1:2] == ":":
        return "an absolute path, or one of another system"
    if ".." in path.split("/"):
        return "the path leads out of the archive"
    if not path.isprintable():
        return "the path holds characters that cannot be shown"
    return None
