"""Every environment variable that Elmyr reads, typed, in one place. Nothing else reads them.

Names are the fields below in upper case with the prefix ELMYR_, e.g. ELMYR_REDIS_URL. Any value
may also come from a file `{secrets_dir}/elmyr_redis_url` (ELMYR_SECRETS_DIR, as Docker and
Kubernetes mount secrets).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What every process of Elmyr agrees on. Secrets never show in a repr or a log."""

    model_config = SettingsConfigDict(
        env_prefix="ELMYR_", secrets_dir=os.environ.get("ELMYR_SECRETS_DIR"), extra="ignore"
    )

    # The stores
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    queue_name: str = Field("elmyr", pattern=r"^[a-z0-9-]{1,40}$")
    """Prefix of every Redis key, in braces: one hash slot in a Redis cluster."""
    s3_endpoint: str = "127.0.0.1:8333"
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    s3_bucket: str = "elmyr"

    # Ray
    ray_dashboard_url: str = "http://127.0.0.1:8265"
    ray_auth_token: SecretStr = SecretStr("")
    ray_max_cpus: float = Field(0, ge=0)
    """CPUs to which an autoscaler may grow the cluster: jobs are admitted against them, and their
    pending processes bring the nodes. 0: there are those that there are."""
    ray_max_gpus: float = Field(0, ge=0)
    """The same of GPUs. Attempts need it as well: by it they choose what the ranks train on."""
    drain_file: Path | None = None
    """Through it a node that goes away tells those at work on it (shared/draining.py)."""

    # HTTP
    api_host: str = "127.0.0.1"
    api_port: int = 8080
    api_url: str = "http://127.0.0.1:8080"
    serve_host: str = "127.0.0.1"
    serve_port: int = 8000
    serve_url: str = "http://127.0.0.1:8000"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9108
    """Where a dispatcher answers /metrics and /healthz; 0 takes a free port."""
    api_keys: str = ""
    """Comma-separated `owner:sha256-of-the-key`; a key itself is never stored."""

    # Limits
    max_upload_bytes: int = 4 * 2**30
    max_json_bytes: int = 2**20
    max_queued_jobs: int = 10_000
    """Submits beyond it get 503: a queue that only grows helps nobody."""

    # The queue's times
    lease_ttl_s: float = 30.0
    """A dispatcher renews three times within it; failover takes at most this long."""
    heartbeat_timeout_s: float = 60.0
    """An attempt that Ray cannot vouch for is dead after this long without a heartbeat."""
    retry_base_s: float = 2.0
    retry_max_s: float = 300.0
    stop_grace_s: float = 60.0
    """Between SIGTERM and SIGKILL: must hold one checkpoint."""

    # Serving
    serve_cache_bytes: int = 2 * 2**30
    serve_alias_ttl_s: float = 1.0
    """How long an alias is believed: a promotion is served within twice this."""
    serve_max_images: int = 256
    """Images a request may ask for; more is a sampling job."""
    serve_max_waiting_images: int = 2048
    """Images that a replica may have promised and not yet made; beyond it 429."""
    serve_max_picture_bytes: int = 16 * 2**20
    """The body of a request that brings pictures or tensors; beyond it 413."""
    serve_max_projections: int = Field(8, ge=1)
    """Pictures that a replica may be asked to encode at a time, each about a second's work; beyond
    it 503."""
    serve_min_replicas: int = Field(1, ge=1)
    serve_max_replicas: int = Field(1, ge=1)
    serve_bulk_min_replicas: int = Field(1, ge=0)
    """0 saves memory between sampling jobs; the first then waits for a process to start."""
    serve_bulk_max_replicas: int = Field(1, ge=1)

    # Traces
    otlp_endpoint: str = ""
    """Where spans go by OTLP over HTTP, e.g. http://collector:4318; empty: nowhere."""

    # Text
    text_encoder: Path | None = None
    """The folder of all-MiniLM-L6-v2; without it the one of the extra `text`."""

    # Evaluation
    inception_weights: Path | None = None
    """Inception-v3 of 2015-12-05 as safetensors; an absolute path, on every machine of the cluster.
    The API only asks whether it is set."""


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()


class ClientSettings(BaseSettings):
    """Where the client and `elmyr` find a stack, when nobody tells them otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="ELMYR_",
        env_ignore_empty=True,
        secrets_dir=os.environ.get("ELMYR_SECRETS_DIR"),
        extra="ignore",
    )

    url: str | None = None
    """The API of a stack elsewhere; `serve_url` and `api_key` belong to it."""
    serve_url: str | None = None
    api_key: SecretStr | None = None
    data_dir: Path = Path(".elmyr")
    """Where `elmyr up` keeps a local stack; its `stack.json` names the addresses and the key."""


def inherited_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment that a child process of this one gets: ours, with `changes`."""
    return {**os.environ, **changes}


def default_variable(name: str, value: str) -> None:
    """Sets for this process a variable that a library reads, unless it has been set."""
    os.environ.setdefault(name, value)
