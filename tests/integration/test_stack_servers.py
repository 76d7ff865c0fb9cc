"""Redis and S3 as the embedded stack and the tests start them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from services.local.processes import PartFailed
from services.local.servers import S3Server, start_redis, start_s3
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from tests.roads import wait_for


def listening(pid: int) -> set[str]:
    """The addresses on which a process listens."""
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN}


def settings_of(s3: S3Server) -> Settings:
    return Settings(
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_bucket="elmyr",
    )


def test_servers_listen_on_loopback_only(tmp_path: Path) -> None:
    with start_redis(tmp_path / "redis") as redis, start_s3(tmp_path / "s3") as s3:
        assert listening(redis.pid) == {"127.0.0.1"}
        assert listening(s3.pid) == {"127.0.0.1"}
    assert not psutil.pid_exists(redis.pid)
    assert not psutil.pid_exists(s3.pid)


def test_a_stopped_server_leaves_no_sockets(tmp_path: Path) -> None:
    with start_s3(tmp_path) as s3:
        socket = Path(f"/tmp/seaweedfs-s3-{s3.port}.sock")
        wait_for(socket.is_socket, within_s=30, what=f"{socket} is there")
    assert not socket.exists()


def test_secrets_are_readable_by_the_owner_only_and_not_on_the_command_line(tmp_path: Path) -> None:
    with start_redis(tmp_path / "redis", password="hush") as redis, start_s3(tmp_path / "s3") as s3:
        for secret in (tmp_path / "redis" / "redis.conf", tmp_path / "s3" / "s3.json"):
            assert secret.stat().st_mode & 0o777 == 0o600
        assert "hush" not in " ".join(psutil.Process(redis.pid).cmdline())
        assert s3.secret_key not in " ".join(psutil.Process(s3.pid).cmdline())


def test_objects_survive_a_restart_on_other_ports(tmp_path: Path) -> None:
    with start_s3(tmp_path, access_key="key", secret_key="secret") as s3:
        store = ObjectStore.from_settings(settings_of(s3))
        store.ensure_bucket()
        store.put("a/b", b"kept")
    with start_s3(tmp_path, access_key="key", secret_key="secret") as s3:
        assert ObjectStore.from_settings(settings_of(s3)).get("a/b") == b"kept"


def test_a_server_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"not an append-only file\n" * 9)
    with pytest.raises(PartFailed, match=r"(?s)redis ended with code .*Bad file format"):
        start_redis(tmp_path)


def test_many_buckets_fit(tmp_path: Path) -> None:
    """A bucket takes a volume of SeaweedFS, whose default is one for each free GB of the disk."""
    with start_s3(tmp_path) as s3:
        for number in range(100):
            settings = settings_of(s3).model_copy(update={"s3_bucket": f"bucket-{number}"})
            store = ObjectStore.from_settings(settings)
            store.ensure_bucket()
            store.put("a", os.urandom(8))
