"""IDX files in an archive -> items: `train-images-idx3-ubyte` goes with `train-labels-idx1-ubyte`.

A `classes.txt` beside them names the classes, one a line.
"""

from __future__ import annotations

import posixpath

from shared import idx
from shared.errors import InvalidInput
from workers.jobs.ingest.archives import MAX_FILES, Kind, Member
from workers.jobs.ingest.spool import Contents, Extent, Item, Refusals, Spool

CLASSES = "classes.txt"


def read(members: list[Member], spool: Spool, refusals: Refusals) -> Contents:
    """One item for each image, file by file in order of path.

    Raises InvalidInput: a header is wrong, or images and labels do not match.
    """
    class_names: list[str] = []
    pictures: list[tuple[Member, idx.IdxHeader]] = []
    labels: dict[str, bytes] = {}
    for member in members:
        if member.kind == Kind.IDX:
            header = _header(member, spool)
            if len(header.shape) == 1:
                labels[_series(member.path)] = spool.read(member.extent, start=header.offset)
            elif len(header.shape) >= 3:
                pictures.append((member, header))
            else:
                raise InvalidInput(f"{member.path} has 2 dimensions: images have 3 or 4, labels 1")
        elif posixpath.basename(member.path) == CLASSES:
            text = spool.read(member.extent).decode(errors="replace")
            class_names = [line.strip() for line in text.splitlines() if line.strip()]
        else:
            refusals.add(member.path, "lies beside IDX files, which are the dataset")
    if sum(header.shape[0] for _, header in pictures) > MAX_FILES:
        raise InvalidInput(f"the IDX files hold more than {MAX_FILES:,} images")
    items = [
        item
        for member, header in pictures
        for item in _items(member, header, labels.get(_series(member.path)))
    ]
    highest = max((item.label for item in items), default=-1)
    if highest >= 0 and not class_names:
        class_names = [str(number) for number in range(highest + 1)]
    if highest >= len(class_names):
        raise InvalidInput(f"a label is {highest}, but {CLASSES} names {len(class_names)} classes")
    return Contents(items=items, class_names=class_names if highest >= 0 else [])


def _header(member: Member, spool: Spool) -> idx.IdxHeader:
    header = idx.read_header(spool.read(member.extent, length=idx.MAX_HEADER_BYTES))
    if header.file_bytes != member.extent.length:
        raise InvalidInput(
            f"{member.path} has {member.extent.length:,} bytes, its header says "
            f"{header.file_bytes:,}"
        )
    return header


def _series(path: str) -> str:
    """What images and their labels share of their names: `train` of `x/train-images-idx3-ubyte`."""
    name = posixpath.basename(path)
    for word in ("images", "labels"):
        name = name.partition(word)[0]
    return posixpath.join(posixpath.dirname(path), name)


def _items(member: Member, header: idx.IdxHeader, labels: bytes | None) -> list[Item]:
    if len(header.shape) == 4 and header.shape[3] not in (1, 3):
        raise InvalidInput(f"{member.path} has {header.shape[3]} channels: 1 or 3 are taken")
    if labels is not None and len(labels) != header.shape[0]:
        raise InvalidInput(
            f"{member.path} holds {header.shape[0]:,} images, but there are {len(labels):,} labels"
        )
    start = member.extent.offset + header.offset
    return [
        Item(
            path=f"{member.path}#{number}",
            extent=Extent(start + number * header.item_bytes, header.item_bytes),
            label=-1 if labels is None else labels[number],
            shape=header.shape[1:],
        )
        for number in range(header.shape[0])
    ]
