"""What attempts leave in the folder for temporary files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from workers.jobs.scratch import NEW_S, scratch

ATTEMPT = """
import tempfile
from workers.jobs.scratch import scratch

with scratch():
    print(tempfile.mkdtemp(), flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def attempt() -> tuple[subprocess.Popen[str], Path]:
    """A process that writes temporary files until its input ends, and its folder, an old one."""
    process = subprocess.Popen(
        [sys.executable, "-c", ATTEMPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    folder = Path(process.stdout.readline().strip()).parent
    old = folder.stat().st_mtime - 2 * NEW_S
    os.utime(folder, (old, old))
    return process, folder


def test_what_a_killed_attempt_leaves_goes_with_the_next(tmp_path: Path) -> None:
    killed, left = attempt()
    alive, kept = attempt()
    try:
        killed.kill()
        killed.communicate()
        with scratch() as own:
            assert set(tmp_path.iterdir()) == {kept, own}
            assert Path(tempfile.mkdtemp()).parent == own
        alive.communicate("\n")
        assert alive.returncode == 0
        assert list(tmp_path.iterdir()) == [], f"{left} is gone, too"
    finally:
        alive.kill()
        alive.communicate()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "elmyr-attempt-x").symlink_to(precious)
    os.utime(precious, (0, 0))
    with scratch():
        pass
    assert precious.is_dir()
