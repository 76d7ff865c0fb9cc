"""A zip or a tar, walked file by file. Which files are kept is not decided here.

Links, devices and encrypted files are refused. A list of files or a header that would fill the
memory ends the walk; nothing is written anywhere.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from shared.errors import InvalidInput
from workers.jobs.ingest.spool import MAX_UNPACKED_BYTES, Refusals

MAX_LIST_BYTES = 48 * 2**20  # of a zip's list of files (some 90 bytes each), or of a tar's header
MAX_XZ_MEMORY = 128 * 2**20  # `xz -9` needs 65 MiB; a hostile file asks for gigabytes
CHUNK_BYTES = 256 * 2**10


class Readable(Protocol):
    """What a walk gives out: bytes until they end."""

    def read(self, size: int, /) -> bytes: ...


Walk = Iterator[tuple[str, Callable[[], AbstractContextManager[Readable]]]]
"""Paths as the container has them; each file must be read before the next is asked for."""


def walk_zip(upload: Path, refusals: Refusals) -> Walk:
    """The files of a zip, in the order of its list."""

    def opener(info: zipfile.ZipInfo) -> Callable[[], AbstractContextManager[Readable]]:
        return lambda: archive.open(info)

    with _CappedFile(upload) as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.filename.endswith("/"):
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                refusals.add(info.filename, "a link or a device")
            elif info.flag_bits & 1:
                refusals.add(info.filename, "encrypted")
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                refusals.add(info.filename, "packed by a method other than deflate")
            else:
                yield info.filename, opener(info)


def walk_tar(upload: Path, refusals: Refusals, inflate: Inflate, max_bytes: int) -> Walk:
    """The files of a tar, in its order; `max_bytes` bounds the whole of it, unpacked."""

    def opener(info: tarfile.TarInfo) -> Callable[[], AbstractContextManager[Readable]]:
        return lambda: archive.extractfile(info)

    with inflate(upload) as stream:
        tape: Any = _Tape(stream, max_bytes)
        archive: Any = tarfile.TarFile(fileobj=tape)
        while (info := archive.next()) is not None:
            archive.members.clear()  # tarfile keeps every header that it has met
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                refusals.add(info.name, "a link, a device or a sparse file")
            else:
                yield info.name.removeprefix("./"), opener(info)


Inflate = Callable[[Path], AbstractContextManager[Readable]]


def plain(path: Path) -> AbstractContextManager[Readable]:
    """A file as it is."""
    return path.open("rb")


def gunzip(path: Path) -> AbstractContextManager[Readable]:
    """A gzip file, unpacked as it is read."""
    return gzip.GzipFile(path)


def bunzip(path: Path) -> AbstractContextManager[Readable]:
    """A bzip2 file, unpacked as it is read."""
    return bz2.BZ2File(path)


@contextmanager
def unxz(path: Path) -> Iterator[Readable]:
    """An xz file, unpacked as it is read, with a limit on its memory."""
    with path.open("rb") as file:
        yield io.BufferedReader(_Xz(file), CHUNK_BYTES)


class _Xz(io.RawIOBase):
    """One xz stream with a limit on memory, which `lzma.LZMAFile` does not offer."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decoder.eof:
            packed = self._file.read(CHUNK_BYTES) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("the xz stream is cut short")
            data = self._decoder.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0


class _CappedFile(io.FileIO):
    """A zip's file. Only the list of files is read in one piece: 48 MiB of it are a million."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:  # the end of the file, where the list is found
            size = MAX_LIST_BYTES
        if size > MAX_LIST_BYTES:
            raise InvalidInput(f"the zip's list of files has {size:,} bytes")
        return super().read(size) or b""


class _Tape:
    """A stream as tarfile wants it. It only winds forward, at most to `max_bytes`, and gives no
    piece that would fill the memory: a header may claim any length."""

    def __init__(self, stream: Readable, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = min(max_bytes, MAX_UNPACKED_BYTES)
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.ReadError("the tar points backward")
        if position > self._max_bytes:
            raise InvalidInput(f"the upload unpacks to more than {self._max_bytes:,} bytes")
        while self._position < position:
            if not self.read(min(CHUNK_BYTES, position - self._position)):
                break
        return self._position

    def read(self, size: int) -> bytes:
        if size > MAX_LIST_BYTES:
            raise InvalidInput(f"the tar has a header of {size:,} bytes")
        data = self._stream.read(size)
        self._position += len(data)
        return data
