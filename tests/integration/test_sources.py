"""Well-known sets: the next source is tried when one fails, and nothing unchecked is given out."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from services.local import packages, sources, wellknown
from services.local.packages import NotReachable
from services.local.sources import KnownSet
from shared import idx
from shared.errors import NotFound, Unavailable

CONTENT = b"the right bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def gives(content: bytes, scratch: Path, folder: Path) -> None:
    (scratch / "part").write_bytes(b"left over")
    (folder / "data").write_bytes(content)


def fails(scratch: Path, folder: Path) -> None:
    (folder / "half").write_bytes(b"half")
    raise NotReachable("it is far away")


def known(monkeypatch: pytest.MonkeyPatch, **getters: sources.Getter) -> None:
    monkeypatch.setitem(
        sources.SETS, "set", KnownSet(sources=getters, size=8, sha256={"data": DIGEST})
    )


def test_the_first_source_that_gives_the_right_bytes_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(
        monkeypatch,
        far=fails,
        wrong=partial(gives, b"other bytes"),
        right=partial(gives, CONTENT),
        never=fails,
    )
    fetched = sources.fetch("set", tmp_path)

    assert (fetched.source, fetched.size, fetched.fit) == ("right", 8, "crop")
    assert {path.name: path.read_bytes() for path in fetched.path.iterdir()} == {"data": CONTENT}
    assert list(tmp_path.iterdir()) == [fetched.path]


def test_one_split_is_taken_with_what_belongs_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(scratch: Path, folder: Path) -> None:
        del scratch
        for name in ("train-images", "train-labels", "t10k-images", "classes.txt"):
            (folder / name).write_bytes(b"x")
        (folder / "t10k-more").mkdir()

    splits = {"train": "train-", "test": "t10k-"}
    monkeypatch.setitem(sources.SETS, "set", KnownSet(sources={"here": get}, size=8, splits=splits))
    for split, names in (
        ("test", {"t10k-images", "t10k-more", "classes.txt"}),
        ("train", {"train-images", "train-labels", "classes.txt"}),
    ):
        into = tmp_path / split
        into.mkdir()
        fetched = sources.fetch("set", into, split=split)
        assert {path.name for path in fetched.path.iterdir()} == names
    with pytest.raises(NotFound, match="there are train, test"):
        sources.fetch("set", tmp_path, split="val")


def test_when_none_works_all_that_was_tried_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, far=fails, wrong=partial(gives, b"other bytes"))

    with pytest.raises(Unavailable, match=r"far: it is far away; wrong: data has the digest"):
        sources.fetch("set", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_set_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="fashion-mnist, cifar10, emoji, digits"):
        sources.fetch("imagenet", tmp_path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        del format, arguments


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server, and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_an_address_is_downloaded(web: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = web
    (folder / "file").write_bytes(CONTENT)

    assert packages.https_file(f"{url}/file", tmp_path / "got").read_bytes() == CONTENT
    with pytest.raises(NotReachable, match="404"):
        packages.https_file(f"{url}/other", tmp_path / "got")


def test_a_download_is_bounded(
    web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = web
    (folder / "file").write_bytes(CONTENT)
    monkeypatch.setattr(packages, "MAX_DOWNLOAD_BYTES", len(CONTENT) - 1)

    with pytest.raises(NotReachable, match="more than 14 bytes"):
        packages.https_file(f"{url}/file", tmp_path / "got")


def test_an_address_where_nobody_listens_is_not_reachable(
    web: tuple[str, Path], tmp_path: Path
) -> None:
    url, _ = web
    with pytest.raises(NotReachable):
        packages.https_file(url.replace("http://127.0.0.1", "http://127.0.0.2"), tmp_path / "got")


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_packs_and_its_archive_is_unpacked(tmp_path: Path) -> None:
    package = tmp_path / "pictures"
    package.mkdir()
    (package / "package.json").write_text(json.dumps({"name": "pictures", "version": "1.0.0"}))
    (package / "one.png").write_bytes(CONTENT)
    archive = packages.npm_archive(str(package), tmp_path / "scratch")

    root = packages.npm_files(archive, tmp_path / "scratch")
    assert (root / "one.png").read_bytes() == CONTENT
    with pytest.raises(NotReachable, match="npm: "):
        packages.npm_archive(str(tmp_path / "no-such-folder"), tmp_path / "scratch")


def test_the_digits_table_becomes_idx_files(
    web: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = web
    rows = [[*range(17), *[0] * 47, 3], [16] * 64 + [9]]
    (folder / "digits").write_text("\n".join(",".join(map(str, row)) for row in rows))
    monkeypatch.setattr(wellknown, "DIGITS_URL", f"{url}/digits")

    wellknown.digits_official(tmp_path, tmp_path)

    images = idx.decode((tmp_path / "digits-images-idx3-ubyte").read_bytes())
    assert images.shape == (2, 8, 8)
    assert images[0].ravel()[:17].tolist() == np.rint(np.arange(17) * 255 / 16).tolist()
    assert (images[1] == 255).all()
    assert idx.decode((tmp_path / "digits-labels-idx1-ubyte").read_bytes()).tolist() == [3, 9]

    (folder / "digits").write_text("no,numbers")
    with pytest.raises(NotReachable, match="damaged"):
        wellknown.digits_official(tmp_path, tmp_path)


@pytest.mark.parametrize(("name", "num_images"), [("digits", 1797), ("fashion-mnist", 70_000)])
def test_a_real_set_is_whole(name: str, num_images: int, tmp_path: Path) -> None:
    """Where a source is in reach; its digests were checked when it is given out."""
    try:
        fetched = sources.fetch(name, tmp_path)
    except Unavailable as error:
        pytest.skip(str(error))
    labels = [path for path in fetched.path.iterdir() if "-labels-" in path.name]
    decoded = [idx.decode(wellknown.read(path.with_suffix(""))) for path in labels]
    assert sum(map(len, decoded)) == num_images
    assert {int(label) for part in decoded for label in part} == set(range(10))


def test_emoji_have_captions_and_hold_names_out(tmp_path: Path) -> None:
    try:
        fetched = sources.fetch("emoji", tmp_path)
    except Unavailable as error:
        pytest.skip(str(error))
    splits = {}
    for split in wellknown.EMOJI_SPLITS:
        folder = fetched.path / split
        entries = [json.loads(line) for line in (folder / "metadata.jsonl").open()]
        assert all((folder / entry["file_name"]).is_file() for entry in entries)
        assert len(list(folder.glob("*/*.png"))) == len(entries)
        splits[split] = [entry["text"] for entry in entries]
    assert {split: len(texts) for split, texts in splits.items()} == {"train": 3378, "test": 408}
    assert not set(splits["train"]) & set(splits["test"])
    assert "runner, running, person activity" in splits["train"]


def test_the_shipped_images_are_the_pinned_ones() -> None:
    pinned = sources.SETS["fashion-mnist"].sha256
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        content = wellknown.read(Path("examples/fashion-mnist") / name)
        assert hashlib.sha256(content).hexdigest() == pinned[name]
