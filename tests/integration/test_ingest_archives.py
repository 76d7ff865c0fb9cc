"""Uploads, well-formed and hostile: what is kept of them, what is refused, what fails."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared import idx
from shared.errors import InvalidInput
from tests.uploads import picture, png, saved, tar_of, zip_of
from workers.jobs.ingest import archives, containers, folders, parquet, spool
from workers.jobs.ingest import idx as idx_files
from workers.jobs.ingest.archives import Kind
from workers.jobs.ingest.spool import Contents, Refusals, Spool


class Unpacked:
    """An upload after its unpacking: paths -> bytes, and path -> reason."""

    def __init__(self, data: bytes, folder: Path) -> None:
        upload = folder / "upload"
        upload.write_bytes(data)
        self.refusals = Refusals()
        self.spool = Spool(folder / "spool", packed_bytes=len(data))
        self.members = archives.unpack(upload, self.spool, self.refusals, lambda: None)

    @property
    def files(self) -> dict[str, bytes]:
        return {member.path: self.spool.read(member.extent) for member in self.members}

    @property
    def refused(self) -> dict[str, str]:
        return {refusal.path: refusal.reason for refusal in self.refusals.listed}

    def contents(self) -> Contents:
        kinds = {member.kind for member in self.members}
        if Kind.PARQUET in kinds:
            return parquet.read(self.members, self.spool, self.refusals, lambda: None)
        if Kind.IDX in kinds:
            return idx_files.read(self.members, self.spool, self.refusals)
        return folders.read(self.members, self.spool, self.refusals)


FILES = {"b/2.png": png(2), "a/1.png": png(1), "a/1.txt": b"one"}


@pytest.mark.parametrize(
    "data",
    [
        zip_of(FILES),
        zip_of(FILES, zipfile.ZIP_STORED),
        *(tar_of(FILES, packing) for packing in ("", "gz", "bz2", "xz")),
    ],
    ids=["zip", "stored zip", "tar", "tar.gz", "tar.bz2", "tar.xz"],
)
def test_every_container_gives_the_same_files_in_order(data: bytes, tmp_path: Path) -> None:
    unpacked = Unpacked(data, tmp_path)

    assert list(unpacked.files.items()) == sorted(FILES.items())
    assert unpacked.refused == {}


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zip_with(name: str, **attributes: Any) -> bytes:
    info = zipfile.ZipInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, png(1))
        archive.writestr("good.png", png(2))
    return buffer.getvalue()


def encrypted_zip() -> bytes:
    """The flag is set in the list of files; that is what is looked at."""
    data = bytearray(zip_with("secret.png"))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def zip_with_bad_crc() -> bytes:
    data = bytearray(zip_of({"bad.png": png(1), "good.png": png(2)}, zipfile.ZIP_STORED))
    data[data.index(b"IDAT") + 8] ^= 0xFF
    return bytes(data)


GOOD = {"good.png": png(2)}


@pytest.mark.parametrize(
    ("data", "path", "reason"),
    [
        (zip_of(GOOD | {"../../etc/cron.d/x.png": png(1)}), "../../etc/cron.d/x.png", "leads out"),
        (zip_of(GOOD | {"a/../../x.png": png(1)}), "a/../../x.png", "leads out"),
        (zip_of(GOOD | {"/etc/x.png": png(1)}), "/etc/x.png", "absolute"),
        (zip_of(GOOD | {"C:/x.png": png(1)}), "C:/x.png", "absolute"),
        (zip_of(GOOD | {"..\\x.png": png(1)}), "..\\x.png", "another system"),
        (zip_of(GOOD | {"a\nb.png": png(1)}), "a\nb.png", "cannot be shown"),
        (zip_of(GOOD | {"x" * 1100: png(1)}), "x" * 300, "too long"),
        (zip_of(GOOD | {"QQ": png(1)}).replace(b"QQ", b"\x00Q"), "", "without a name"),
        (tar_of(GOOD | {"../x.png": png(1)}), "../x.png", "leads out"),
        (tar_of(GOOD | {"/x.png": png(1)}), "/x.png", "absolute"),
        (tar_of(GOOD, extra=[link("l", tarfile.SYMTYPE, "/etc/passwd")]), "l", "a link"),
        (tar_of(GOOD, extra=[link("l", tarfile.LNKTYPE, "good.png")]), "l", "a link"),
        (tar_of(GOOD, extra=[link("d", tarfile.CHRTYPE, "")]), "d", "a device"),
        (tar_of(GOOD, extra=[link("f", tarfile.FIFOTYPE, "")]), "f", "a device"),
        (zip_with("l", external_attr=(stat.S_IFLNK | 0o777) << 16), "l", "a link"),
        (zip_with("l", compress_type=zipfile.ZIP_LZMA), "l", "other than deflate"),
        (encrypted_zip(), "secret.png", "encrypted"),
        (zip_with_bad_crc(), "bad.png", "cannot be unpacked"),
        (zip_of(GOOD | {"inner.zip": zip_of(FILES)}), "inner.zip", "within the archive"),
        (zip_of(GOOD | {"inner.png": tar_of(FILES, "gz")}), "inner.png", "within the archive"),
        (tar_of(GOOD | {"inner": tar_of(FILES)}), "inner", "within the archive"),
        (zip_of(GOOD | {"half.gz": gzip.compress(idx.encode(np.zeros(9, np.uint8)))[:-9]}),
         "half.gz", "cannot be unpacked"),
        (zip_of(GOOD | {"notes.pdf": b"%PDF"}), "notes.pdf", "not a PNG"),
        (zip_of(GOOD | {"fake.png": b"GIF89a"}), "fake.png", "not a PNG"),
        (zip_of(GOOD | {"empty.png": b""}), "empty.png", "not a PNG"),
    ],
)  # fmt: skip
def test_one_bad_file_is_refused_and_the_others_are_kept(
    data: bytes, path: str, reason: str, tmp_path: Path
) -> None:
    unpacked = Unpacked(data, tmp_path)

    assert list(unpacked.files.items()) == list(GOOD.items())
    assert list(unpacked.refused) == [path]
    assert reason in unpacked.refused[path]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spool", "upload"]


def test_a_second_file_of_a_path_is_refused(tmp_path: Path) -> None:
    data = zip_of({"x.png": png(1), "y.png": png(2)}).replace(b"y.png", b"x.png")
    unpacked = Unpacked(data, tmp_path)

    assert unpacked.files == {"x.png": png(1)}
    assert "second file" in unpacked.refused["x.png"]


def test_hidden_files_and_papers_are_passed_over(tmp_path: Path) -> None:
    papers = ["__MACOSX/good.png", ".DS_Store", "a/.git/x.png", "README.md", "x/LICENSE"]
    unpacked = Unpacked(zip_of(GOOD | dict.fromkeys(papers, png(1))), tmp_path)

    assert unpacked.files == GOOD
    assert unpacked.refusals.count == 0


def forged_tar_header(size: int) -> bytes:
    """A pax header that claims to be `size` bytes long."""
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no zip"),
        (b"hello", "no zip"),
        (png(1), "no zip"),
        (b"PK\x03\x04" + bytes(100), "cannot be read as zip"),
        (zip_of(FILES)[:-30], "cannot be read as zip"),
        (tar_of(FILES)[:700], "cannot be read as tar"),
        (tar_of(FILES, "gz")[:-200], "cannot be read as gzip"),
        (tar_of(FILES, "bz2")[:-200], "cannot be read as bzip2"),
        (tar_of(FILES, "xz")[:-200], "cannot be read as xz"),
        (gzip.compress(b"no tar" * 200), "cannot be read as gzip"),
        (forged_tar_header(2**33) + bytes(1024), "a header of"),
        (zip_of({"a.txt": bytes(40 * 2**20), "b.txt": bytes(40 * 2**20)}), "unpacks to more than"),
        (tar_of({"bomb.bin": bytes(80 * 2**20), "z.png": png(1)}, "gz"), "unpacks to more than"),
        (tar_of({"bomb.bin": bytes(80 * 2**20), "z.png": png(1)}, "xz"), "unpacks to more than"),
        (
            zip_of(
                {"x-images.gz": gzip.compress(idx.encode(np.zeros((80, 1024, 1024), np.uint8)))}
            ),
            "unpacks to more than",
        ),
    ],
)
def test_a_bad_upload_fails_as_a_whole(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=reason):
        Unpacked(data, tmp_path)
    assert not (tmp_path / "spool").exists() or (tmp_path / "spool").stat().st_size < 65 * 2**20


def test_a_zip_whose_list_would_fill_the_memory_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "MAX_LIST_BYTES", 64 * 2**10)

    with pytest.raises(InvalidInput, match="list of files"):
        Unpacked(zip_of({f"{number}.png": b"" for number in range(2000)}), tmp_path)


def test_too_many_files_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 2)

    with pytest.raises(InvalidInput, match="more than 2 files"):
        Unpacked(zip_of(FILES), tmp_path)


def test_refusals_are_counted_beyond_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_REFUSALS", 2)
    refusals = Refusals()
    for number in range(5):
        refusals.add(f"{number}\udcff", "bad")

    assert (len(refusals.listed), refusals.count) == (2, 5)
    assert refusals.listed[0].path == "0?"


def test_folders_are_classes_and_captions_lie_beside(tmp_path: Path) -> None:
    contents = Unpacked(
        zip_of(
            {
                "set/cats/b.png": png(1),
                "set/dogs/a.png": png(2),
                "set/dogs/a.txt": b" a dog \n",
                "set/metadata.jsonl": b'{"file_name": "cats/b.png", "text": "a cat"}\n',
            }
        ),
        tmp_path,
    ).contents()

    assert contents.class_names == ["cats", "dogs"]
    assert [(item.path, item.label, item.text) for item in contents.items] == [
        ("set/cats/b.png", 0, "a cat"),
        ("set/dogs/a.png", 1, "a dog"),
    ]


@pytest.mark.parametrize(
    "paths", [["a.png", "b.png"], ["x/a.png", "x/b.png"], ["train/a.png", "test/b.png"]]
)
def test_one_folder_or_a_split_is_no_class(paths: list[str], tmp_path: Path) -> None:
    files = {path: png(number) for number, path in enumerate(paths)}
    contents = Unpacked(zip_of(files), tmp_path).contents()

    assert contents.class_names == []
    assert {item.label for item in contents.items} == {-1}


def test_bad_lines_of_metadata_are_refused(tmp_path: Path) -> None:
    unpacked = Unpacked(
        zip_of({"a.png": png(1), "metadata.jsonl": b'{"file_name": 1}\n[]\n{"file_na'}), tmp_path
    )
    unpacked.contents()

    assert list(unpacked.refused) == [f"metadata.jsonl:{line}" for line in (1, 2, 3)]


IMAGES = np.stack([picture(number, channels=1)[:, :, 0] for number in range(4)])
LABELS = np.array([1, 0, 2, 1], np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_are_paired_by_name(pack: Any, tmp_path: Path) -> None:
    unpacked = Unpacked(
        tar_of(
            {
                "train-images-idx3-ubyte": pack(idx.encode(IMAGES)),
                "train-labels-idx1-ubyte": pack(idx.encode(LABELS)),
                "t10k-images-idx3-ubyte": pack(idx.encode(IMAGES[:1])),
                "t10k-labels-idx1-ubyte": pack(idx.encode(LABELS[:1])),
                "classes.txt": b"bag\nboot\ncoat\n",
            }
        ),
        tmp_path,
    )
    contents = unpacked.contents()

    assert contents.class_names == ["bag", "boot", "coat"]
    assert [item.label for item in contents.items] == [1, 1, 0, 2, 1]
    assert contents.items[2].path == "train-images-idx3-ubyte#1"
    assert unpacked.spool.read(contents.items[2].extent) == IMAGES[1].tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_bare_idx_file_has_no_classes(pack: Any, tmp_path: Path) -> None:
    contents = Unpacked(pack(idx.encode(IMAGES)), tmp_path).contents()

    assert len(contents.items) == 4
    assert contents.class_names == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"images": idx.encode(IMAGES)[:-1]}, "its header says"),
        ({"images": idx.encode(IMAGES)[:7]}, "cut short"),
        ({"images": idx.encode(IMAGES[0])}, "2 dimensions"),
        ({"images": idx.encode(np.zeros((2, 4, 4, 2), np.uint8))}, "2 channels"),
        ({"images": idx.encode(IMAGES), "labels": idx.encode(LABELS[:3])}, "3 labels"),
        (
            {
                "images": idx.encode(IMAGES),
                "labels": idx.encode(LABELS),
                "classes.txt": b"one\ntwo",
            },
            "names 2 classes",
        ),
    ],
)
def test_idx_files_that_do_not_fit_fail(
    files: dict[str, bytes], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        Unpacked(zip_of(files), tmp_path).contents()


def parquet_of(columns: dict[str, Any], names: list[str] | None = None) -> bytes:
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        info = str({"info": {"features": features}}).replace("'", '"')
        table = table.replace_schema_metadata({"huggingface": info})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


STRUCTS = [{"bytes": png(number), "path": f"{number}.png"} for number in range(3)]


@pytest.mark.parametrize(
    ("columns", "names", "labels", "class_names"),
    [
        ({"image": STRUCTS, "label": [1, 0, 1]}, ["cat", "dog"], [1, 0, 1], ["cat", "dog"]),
        ({"image": STRUCTS, "label": [1, 0, 1]}, None, [1, 0, 1], ["0", "1"]),
        ({"image": STRUCTS, "label": ["b", "a", None]}, None, [1, 0, -1], ["a", "b"]),
        ({"image": STRUCTS, "label": [-1, -1, -1]}, ["cat"], [-1, -1, -1], []),
        ({"img": [png(number) for number in range(3)]}, None, [-1, -1, -1], []),
    ],
)
def test_parquet_is_read_in_the_hugging_face_layout(
    columns: dict[str, Any],
    names: list[str] | None,
    labels: list[int],
    class_names: list[str],
    tmp_path: Path,
) -> None:
    data = parquet_of(columns | {"text": ["x", None, "z"], "other": [1, 2, 3]}, names)
    for number, upload in enumerate([data, zip_of({"data/train-00000-of-00001.parquet": data})]):
        folder = tmp_path / str(number)
        folder.mkdir()
        unpacked = Unpacked(upload, folder)
        contents = unpacked.contents()

        assert [item.label for item in contents.items] == labels
        assert [item.text for item in contents.items] == ["x", None, "z"]
        assert contents.class_names == class_names
        assert [unpacked.spool.read(item.extent) for item in contents.items] == [
            png(number) for number in range(3)
        ]


def test_rows_without_an_image_are_refused(tmp_path: Path) -> None:
    unpacked = Unpacked(
        parquet_of({"image": [{"bytes": None, "path": "far.png"}, STRUCTS[0]]}), tmp_path
    )

    assert len(unpacked.contents().items) == 1
    assert list(unpacked.refused) == ["far.png"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PAR1" + bytes(100), "cannot be read as Parquet"),
        (parquet_of({"image": STRUCTS})[:-20], "cannot be read as Parquet"),
        (parquet_of({"picture": STRUCTS}), "no column of images"),
        (parquet_of({"image": ["a", "b"]}), "no column of images"),
        (parquet_of({"image": STRUCTS, "label": [0.5, 1, 2]}), "neither all names"),
        (parquet_of({"image": STRUCTS, "label": [0, 1, 2]}, ["a", "b"]), "2 class names"),
        (parquet_of({"image": STRUCTS, "label": [0, 1, 10**9]}), "neither all names"),
    ],
)
def test_bad_parquet_fails(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=reason):
        Unpacked(data, tmp_path).contents()


def test_an_image_file_that_is_too_large_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(archives.MAX_BYTES, Kind.IMAGE, 2000)
    big = saved(picture(1, size=64), "PNG")
    unpacked = Unpacked(zip_of({"big.png": big, "good.png": png(2)}), tmp_path)

    assert unpacked.files == GOOD
    assert "more than 2,000 bytes" in unpacked.refused["big.png"]
