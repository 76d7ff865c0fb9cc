"""A folder becomes a tar on the way: whole, the same each time, and in small pieces."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from services.client.transport import CHUNK_BYTES
from services.client.uploads import upload_of
from shared.errors import InvalidInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "garments"
    for name, content in {
        "shirt/1.png": b"a" * 700,
        "coat/2.png": b"b" * 512,
        "empty.txt": b"",
        f"{'long' * 40}/{'name' * 40}.png": b"c" * (3 * CHUNK_BYTES + 1),
        ".DS_Store": b"junk",
        ".git/config": b"junk",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def members(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}


def test_a_folder_is_a_tar_of_its_visible_files(folder: Path) -> None:
    upload = upload_of(folder)
    assert upload.filename == "garments.tar"
    assert members(b"".join(upload.body())) == {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(".")
    }


def test_the_size_is_known_before_and_the_bytes_are_the_same_again(folder: Path) -> None:
    upload = upload_of(folder)
    first = b"".join(upload.body())
    assert len(first) == upload.num_bytes
    assert b"".join(upload.body()) == first
    assert b"".join(upload_of(folder).body()) == first


def test_no_piece_is_larger_than_a_chunk(folder: Path) -> None:
    assert max(map(len, upload_of(folder).body())) <= CHUNK_BYTES


def test_links_to_files_are_followed_and_links_to_folders_are_not(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").write_bytes(b"linked")
    (folder / "coat" / "3.png").symlink_to(tmp_path / "elsewhere" / "3.png")
    (folder / "loop").symlink_to(folder)
    packed = members(b"".join(upload_of(folder).body()))
    assert packed["coat/3.png"] == b"linked"
    assert not any(name.startswith("loop") for name in packed)


def test_a_file_goes_as_it_is_and_progress_is_told(tmp_path: Path) -> None:
    file = tmp_path / "images.zip"
    file.write_bytes(bytes(2 * CHUNK_BYTES + 5))
    told: list[int] = []
    upload = upload_of(file, on_progress=told.append)
    assert (upload.filename, upload.num_bytes) == ("images.zip", 2 * CHUNK_BYTES + 5)
    assert b"".join(upload.body()) == file.read_bytes()
    assert told == [CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 5]


@pytest.mark.parametrize("content", [b"shorter", b"longer than it was before"])
def test_a_file_that_changes_on_the_way_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "images.zip"
    file.write_bytes(b"as it was before")
    upload = upload_of(file)
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="changed while it was uploaded"):
        b"".join(upload.body())


def test_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file or folder"):
        upload_of(tmp_path / "missing")
    (tmp_path / ".hidden").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="no files in"):
        upload_of(tmp_path)
