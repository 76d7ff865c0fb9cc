"""How each part of the stack is started, in the order in which they stand on each other.

A starter returns when its part is ready: with the process to watch, or with None when there is
none of ours (an external server, or the Serve applications, whose processes are Ray's).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.local.identity import Identity
from services.local.marks import mark
from services.local.ports import LOOPBACK
from services.local.probes import http_ok
from services.local.processes import Process
from services.local.ray_head import client_environment, start_ray
from services.local.servers import start_redis, start_s3
from shared.settings import Settings, inherited_environment
from shared.storage.objects import ObjectStore

SERVE_S = 240.0
"""Its replicas import torch: 10 s on a free machine, a minute on a busy one."""
SERVICE_S = 90.0


@dataclass(frozen=True)
class Site:
    """Where a stack stands: its folder, what it keeps, and what the user has set."""

    data_dir: Path
    identity: Identity
    settings: Settings
    """A Redis or S3 that is named here explicitly is used instead of one of ours."""

    @property
    def own_redis(self) -> bool:
        return "redis_url" not in self.settings.model_fields_set

    @property
    def own_s3(self) -> bool:
        return "s3_endpoint" not in self.settings.model_fields_set

    @property
    def api_url(self) -> str:
        return f"http://{LOOPBACK}:{self.identity.ports['api']}"

    @property
    def serve_url(self) -> str:
        return f"http://{LOOPBACK}:{self.identity.ports['serve']}"

    @property
    def dashboard_url(self) -> str:
        return f"http://{LOOPBACK}:{self.identity.ports['dashboard']}"

    def log(self, part: str) -> Path:
        return self.data_dir / "logs" / f"{part}.log"

    def environment(self, part: str) -> dict[str, str]:
        """The whole environment of a process of Elmyr's own, and of the jobs that Ray runs."""
        identity, ports = self.identity, self.identity.ports
        ours = {
            "ELMYR_RAY_DASHBOARD_URL": self.dashboard_url,
            "ELMYR_API_HOST": LOOPBACK,
            "ELMYR_API_PORT": str(ports["api"]),
            "ELMYR_API_URL": self.api_url,
            "ELMYR_METRICS_HOST": LOOPBACK,
            "ELMYR_METRICS_PORT": str(ports["dispatcher"]),
            "ELMYR_SERVE_HOST": LOOPBACK,
            "ELMYR_SERVE_PORT": str(ports["serve"]),
            "ELMYR_SERVE_URL": self.serve_url,
        }
        if self.own_redis:
            ours["ELMYR_REDIS_URL"] = (
                f"redis://:{identity.redis_password}@{LOOPBACK}:{ports['redis']}/0"
            )
        if self.own_s3:
            ours["ELMYR_S3_ENDPOINT"] = f"{LOOPBACK}:{ports['s3']}"
            ours["ELMYR_S3_ACCESS_KEY"] = identity.s3_access_key
            ours["ELMYR_S3_SECRET_KEY"] = identity.s3_secret_key
            ours["ELMYR_S3_SECURE"] = "false"
        environment = inherited_environment({**ours, **mark(identity.stack_id, part)})
        environment.pop("ELMYR_API_KEY", None)  # the user's, for another stack
        return environment


def redis(site: Site) -> Process | None:
    if not site.own_redis:
        return None
    identity = site.identity
    return start_redis(
        site.data_dir / "redis",
        identity.ports["redis"],
        password=identity.redis_password,
        env=mark(identity.stack_id, "redis"),
        log=site.log("redis"),
    ).process


def s3(site: Site) -> Process | None:
    process = None
    identity, settings = site.identity, site.settings
    if site.own_s3:
        server = start_s3(
            site.data_dir / "s3",
            identity.ports["s3"],
            access_key=identity.s3_access_key,
            secret_key=identity.s3_secret_key,
            env=mark(identity.stack_id, "s3"),
            log=site.log("s3"),
        )
        process = server.process
        settings = settings.model_copy(update=server.settings())
    ObjectStore.from_settings(settings).ensure_bucket()
    return process


def ray(site: Site) -> Process:
    return start_ray(
        site.data_dir / "ray",
        site.identity,
        stop_grace_s=site.settings.stop_grace_s,
        env=site.environment("ray"),
        log=site.log("ray"),
    )


def serve(site: Site) -> None:
    environment = {
        **site.environment("serve"),
        **client_environment(site.data_dir / "ray", site.identity),
        "RAY_ADDRESS": f"{LOOPBACK}:{site.identity.ports['ray']}",
    }
    deployment = Process(
        "serve", _module("services.serving"), log=site.log("serve"), env=environment
    )
    deployment.wait_done(timeout_s=SERVE_S)


def api(site: Site) -> Process:
    environment = {**site.environment("api"), "ELMYR_API_KEYS": site.identity.api_keys}
    process = Process("api", _module("services.api"), log=site.log("api"), env=environment)
    process.wait_ready(lambda: http_ok(site.identity.ports["api"], "/readyz"), timeout_s=SERVICE_S)
    return process


def dispatcher(site: Site) -> Process:
    environment = {
        **site.environment("dispatcher"),
        "ELMYR_RAY_AUTH_TOKEN": site.identity.ray_token,
    }
    process = Process(
        "dispatcher",
        _module("services.dispatcher"),
        log=site.log("dispatcher"),
        env=environment,
    )
    port = site.identity.ports["dispatcher"]
    process.wait_ready(lambda: http_ok(port, "/healthz"), timeout_s=SERVICE_S)
    return process


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


@dataclass(frozen=True)
class Part:
    """How a part is started, and the ports that it takes."""

    start: Callable[[Site], Process | None]
    ports: tuple[str, ...] = ()


PARTS = {
    "redis": Part(redis, ("redis",)),
    "s3": Part(s3, ("s3",)),
    "ray": Part(ray, ("ray", "ray_agent", "ray_metrics", "dashboard")),
    "serve": Part(serve, ("serve", "serve_fallback", "haproxy_metrics", "haproxy_stats")),
    "api": Part(api, ("api",)),
    "dispatcher": Part(dispatcher, ("dispatcher",)),
}
