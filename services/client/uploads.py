"""What a dataset's upload sends: a file as it is, or a folder packed to a tar on the way.

Nothing is copied on disk or held in memory beyond a chunk. What the files mean is for the ingest
job to say.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.client.transport import CHUNK_BYTES, Body
from shared.errors import InvalidInput

END_BYTES = 2 * tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Upload:
    """`filename` tells the format by its end; `body` makes the bytes, as often as it is called."""

    filename: str
    body: Body
    num_bytes: int


def upload_of(path: Path, *, on_progress: Callable[[int], None] | None = None) -> Upload:
    """The upload of a file or folder; `on_progress` hears how many bytes are behind.

    Hidden files are left out of a folder; links to files are followed, links to folders are not.
    Raises InvalidInput when there is nothing at `path` or nothing in it.
    """
    told = on_progress or (lambda _: None)
    if path.is_file():
        num_bytes = path.stat().st_size
        return Upload(path.name, lambda: _told(_content(path, num_bytes), told), num_bytes)
    if not path.is_dir():
        raise InvalidInput(f"there is no file or folder {path}")
    members = [(file, _member(path, file)) for file in _files(path)]
    if not members:
        raise InvalidInput(f"there are no files in {path}")
    return Upload(
        filename=f"{path.resolve().name}.tar",
        body=lambda: _told(_tar(members), told),
        num_bytes=sum(len(_header(m)) + m.size + _padding(m.size) for _, m in members) + END_BYTES,
    )


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.is_file())


def _member(folder: Path, file: Path) -> tarfile.TarInfo:
    """Name and size and nothing else: the same folder gives the same bytes anywhere."""
    member = tarfile.TarInfo(file.relative_to(folder).as_posix())
    member.size = file.stat().st_size
    return member


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(num_bytes: int) -> int:
    return -num_bytes % tarfile.BLOCKSIZE


def _tar(members: list[tuple[Path, tarfile.TarInfo]]) -> Iterator[bytes]:
    for file, member in members:
        yield _header(member)
        yield from _content(file, member.size)
        yield bytes(_padding(member.size))
    yield bytes(END_BYTES)


def _content(path: Path, num_bytes: int) -> Iterator[bytes]:
    """The file's bytes, which must be as many as were announced. Raises InvalidInput if not."""
    missing = num_bytes
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            missing -= len(chunk)
            if missing < 0:
                break
            yield chunk
    if missing:
        raise InvalidInput(f"{path} changed while it was uploaded: push it again")


def _told(chunks: Iterator[bytes], told: Callable[[int], None]) -> Iterator[bytes]:
    num_bytes = 0
    for chunk in chunks:
        yield chunk
        num_bytes += len(chunk)
        told(num_bytes)
