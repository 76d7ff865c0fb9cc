"""An embedded stack of S3, Ray and Serve only, for tests and benchmarks of serving."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from services.local.identity import load_identity
from services.local.marks import end_marked
from services.local.state import load_state
from shared.settings import Settings
from shared.storage.objects import ObjectStore
from shared.storage.registry import Registry

READY_S = 300.0
STOP_S = 60.0


@dataclass(frozen=True)
class ServingStack:
    """A running one."""

    url: str
    stack_id: str
    store: ObjectStore

    @property
    def registry(self) -> Registry:
        return Registry(self.store)


@contextmanager
def serving_stack(data_dir: Path) -> Iterator[ServingStack]:
    """Start the parts in `data_dir`; they end with the block, whatever happens."""
    log = data_dir / "supervisor.log"
    with log.open("w") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "services.local", data_dir, "s3", "ray", "serve"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + READY_S
        while (state := load_state(data_dir)) is None or state.state != "running":
            assert supervisor.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        identity = load_identity(data_dir)
        settings = Settings(
            s3_endpoint=f"127.0.0.1:{identity.ports['s3']}",
            s3_access_key=SecretStr(identity.s3_access_key),
            s3_secret_key=SecretStr(identity.s3_secret_key),
        )
        yield ServingStack(state.serve_url, identity.stack_id, ObjectStore.from_settings(settings))
    finally:
        supervisor.terminate()
        supervisor.wait(STOP_S)
        end_marked(load_identity(data_dir).stack_id)
