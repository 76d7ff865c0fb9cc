"""Image files in folders -> items: the class is the folder's name, captions lie beside the images.

Captions come from `metadata.jsonl` (lines of `{"file_name": ..., "text": ...}`, paths from its own
folder) or from a `.txt` of the image's name.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable

from shared.errors import InvalidInput
from workers.jobs.ingest.archives import Kind, Member
from workers.jobs.ingest.spool import Contents, Item, Refusals, Spool

MAX_CLASSES = 10_000
SPLITS = frozenset({"train", "test", "val", "valid", "validation"})
"""Folders that divide a set, not classes of it."""


def read(members: list[Member], spool: Spool, refusals: Refusals) -> Contents:
    """One item for each image, in order of path. Raises InvalidInput: too many classes."""
    images = [member for member in members if member.kind == Kind.IMAGE]
    captions = _captions(members, spool, refusals)
    class_names = _class_names(member.path for member in images)
    numbers = {name: number for number, name in enumerate(class_names)}
    items = [
        Item(
            path=member.path,
            extent=member.extent,
            label=numbers.get(_folder(member.path), -1),
            text=captions.get(member.path) or captions.get(posixpath.splitext(member.path)[0]),
        )
        for member in images
    ]
    return Contents(items=items, class_names=class_names)


def _folder(path: str) -> str:
    return posixpath.basename(posixpath.dirname(path))


def _class_names(paths: Iterable[str]) -> list[str]:
    """The folders' names, if they tell images apart: one folder is no class, nor is a split."""
    names = {_folder(path) for path in paths} - {""}
    if len(names) < 2 or names <= SPLITS:
        return []
    if len(names) > MAX_CLASSES:
        raise InvalidInput(
            f"the upload has {len(names):,} folders: at most {MAX_CLASSES:,} classes"
        )
    return sorted(names)


def _captions(members: list[Member], spool: Spool, refusals: Refusals) -> dict[str, str]:
    """Captions by the image's path (from metadata.jsonl) or by its path without the suffix."""
    captions: dict[str, str] = {}
    for member in members:
        if member.kind != Kind.TEXT:
            continue
        text = spool.read(member.extent).decode(errors="replace")
        if member.path.endswith(".txt"):
            captions[posixpath.splitext(member.path)[0]] = text.strip()
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                entry = json.loads(line)
                path, caption = str(entry["file_name"]), str(entry["text"]).strip()
            except (ValueError, KeyError, TypeError, RecursionError):
                refusals.add(f"{member.path}:{number}", "no JSON object with file_name and text")
                continue
            folder = posixpath.dirname(member.path)
            captions[posixpath.normpath(posixpath.join(folder, path))] = caption
    return captions
