"""A zip archive as a stream: one file in memory at a time, and 60 bytes for each that is done.

The standard library's writer keeps half a kilobyte a file: 500 MB for a million pictures. Files are
stored, not deflated (pictures are compressed already). The format is PKWARE's APPNOTE 6.3: local
headers, a central directory, and its ZIP64 end where counts or offsets are large.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

VERSION_ZIP64 = 45
UTF8_NAMES = 0x800
FIRST_DAY = 0x21  # 1980-01-01: the same pictures give the same archive
REGULAR_FILE = 0o100644 << 16
MAX_32 = 0xFFFFFFFF
MAX_16 = 0xFFFF


def archive(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """The archive of (name, content), in pieces; each content is below 4 GiB."""
    directory = bytearray()
    count = offset = 0
    for name, content in files:
        encoded = name.encode()
        # Version, flags, stored, time, date, CRC-32, both sizes, length of the name.
        facts = struct.pack(
            "<HHHHHIIIH",
            VERSION_ZIP64, UTF8_NAMES, 0, 0, FIRST_DAY,
            zlib.crc32(content), len(content), len(content), len(encoded),
        )  # fmt: skip
        local = b"PK\3\4" + facts + struct.pack("<H", 0) + encoded
        far = struct.pack("<HHQ", 1, 8, offset) if offset >= MAX_32 else b""
        directory += b"PK\1\2" + struct.pack("<H", VERSION_ZIP64) + facts
        directory += struct.pack("<HHHHII", len(far), 0, 0, 0, REGULAR_FILE, min(offset, MAX_32))
        directory += encoded + far
        count += 1
        offset += len(local) + len(content)
        yield local + content
    yield bytes(directory)
    yield _end(count, len(directory), offset)


def _end(count: int, num_bytes: int, offset: int) -> bytes:
    """The end of an archive whose directory of `count` entries lies at `offset`."""
    large = b""
    if count >= MAX_16 or offset + num_bytes >= MAX_32:
        large = b"PK\6\6" + struct.pack(
            "<QHHIIQQQQ", 44, VERSION_ZIP64, VERSION_ZIP64, 0, 0, count, count, num_bytes, offset
        )
        large += b"PK\6\7" + struct.pack("<IQI", 0, offset + num_bytes, 1)
    count = min(count, MAX_16)
    return (
        large
        + b"PK\5\6"
        + struct.pack(
            "<HHHHIIH", 0, 0, count, count, min(num_bytes, MAX_32), min(offset, MAX_32), 0
        )
    )
