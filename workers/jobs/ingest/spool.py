"""What one upload holds, while it is looked at: bytes in one file, and what was refused.

Everything that is unpacked goes into one spool file, one thing after the other. A name from an
upload never becomes a path on this machine, so no name can lead out of a folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.errors import InvalidInput
from shared.schemas.datasets import Refusal
from workers.training.shards import NO_LABEL

MAX_RATIO = 100  # unpacked to packed bytes; photographs reach 1, IDX files 10
FREE_BYTES = 64 * 2**20  # unpacked whatever the ratio: small sets of flat pictures pack very well
MAX_UNPACKED_BYTES = 16 * 2**30
MAX_REFUSALS = 1000  # listed in the manifest; the rest is only counted
MAX_PATH_CHARS = 300  # of a path in a report


class Refusals:
    """Every file that is not in the dataset, and why: the first 1,000 listed, all counted."""

    def __init__(self) -> None:
        self.listed: list[Refusal] = []
        self.count = 0

    def add(self, path: str, reason: str) -> None:
        self.count += 1
        if len(self.listed) < MAX_REFUSALS:
            printable = path[:MAX_PATH_CHARS].encode(errors="replace").decode()
            self.listed.append(Refusal(path=printable, reason=reason))


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of the spool file."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to come: an image file in the spool, or (with `shape`, [H, W] or [H, W, C]) raw
    pixels. `label` is a class number, -1 for none."""

    path: str
    extent: Extent
    label: int = NO_LABEL
    text: str | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What an upload holds, in the order that the dataset will have."""

    items: list[Item]
    class_names: list[str] = field(default_factory=list)


class TooLong(Exception):
    """One thing has more bytes than it may; nothing of it was kept."""


class Spool:
    """A file that only grows, to at most what an upload of `packed_bytes` may unpack to."""

    def __init__(self, path: Path, *, packed_bytes: int) -> None:
        self.path = path
        self.max_bytes = min(MAX_UNPACKED_BYTES, FREE_BYTES + MAX_RATIO * packed_bytes)
        self._file = path.open("w+b")
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, chunks: Iterable[bytes], *, max_bytes: int) -> Extent:
        """Append one thing. If reading it fails, it leaves no trace.

        Raises:
            InvalidInput: the upload unpacks to more than it may.
            TooLong: this thing has more than `max_bytes`.
        """
        start = self._end
        try:
            for chunk in chunks:
                self._end += len(chunk)
                if self._end > self.max_bytes:
                    raise InvalidInput(
                        f"the upload unpacks to more than {self.max_bytes:,} bytes "
                        f"(at most {MAX_RATIO} times its size)"
                    )
                if self._end - start > max_bytes:
                    raise TooLong(f"more than {max_bytes:,} bytes")
                self._file.write(chunk)
        except BaseException:
            self._end = start
            self._file.seek(start)
            self._file.truncate()
            raise
        return Extent(start, self._end - start)

    def read(self, extent: Extent, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of an extent, or `length` of them from `start`."""
        available = extent.length - start
        self._file.seek(extent.offset + start)
        data = self._file.read(available if length is None else min(length, available))
        self._file.seek(self._end)
        return data

    def flush(self) -> None:
        """Make all that was added readable by other processes."""
        self._file.flush()
