"""`make compose-test`: build the images, compose the system, walk the road through it, end it.

An engine of our own is started if none answers, a base image is made if BASE_IMAGE names none; what
was started ends with us.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from services.local.ports import LOOPBACK, number, reserve
from shared.settings import inherited_environment
from tests.compose.engine import engine
from tests.compose.packages import ROOT, make_base, wheels
from tests.compose.system import PARTS, System
from tests.compose.telling import told

PUBLISHED = ("API_PORT", "SERVE_PORT", "DASHBOARD_PORT", "PROMETHEUS_PORT")
READY_S = 420.0
TESTS = ("tests/acceptance/test_road.py", "tests/compose")


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # unwinds: all that runs is ended
    with engine() as where, TemporaryDirectory(prefix="elmyr-compose-") as folder:
        secrets = Path(folder) / "secrets"
        subprocess.run([sys.executable, ROOT / "deploy/docker/new_secrets.py", secrets], check=True)
        base = inherited_environment({}).get("BASE_IMAGE") or make_base(where)
        environment = {
            **where,
            **free_ports(),
            "COMPOSE_FILE": f"{ROOT}/docker-compose.yml:{ROOT}/docker-compose.offline.yml",
            "COMPOSE_PROJECT_NAME": "elmyr-test",
            "SECRETS": str(secrets),
            "BASE_IMAGE": base,
            "PIP_FIND_LINKS": "",
            "COMPOSE_HTTP_TIMEOUT": "900",  # an engine that copies layers whole takes minutes
        }
        with wheels() as address, told("docker-compose build"):
            System({**environment, "PIP_FIND_LINKS": address}).compose("build", *PARTS)
        with composed(System(environment)):
            return walk(environment, api_key=(secrets / "api_key").read_text())


@contextmanager
def composed(system: System) -> Iterator[None]:
    """The system, healthy, until the block ends; its logs if it does not become so."""
    try:
        with told("docker-compose up -d"):
            system.compose("up", "-d", *PARTS)
            system.wait_healthy(within_s=READY_S)
        yield
    except BaseException:
        system.tell_logs()
        raise
    finally:
        with told("docker-compose down -v"):
            system.compose("down", "-v")


def walk(environment: dict[str, str], *, api_key: str) -> int:
    """The acceptance test of the road, and what only a composed system can show."""
    reach = {
        "ELMYR_URL": f"http://{LOOPBACK}:{environment['API_PORT']}",
        "ELMYR_SERVE_URL": f"http://{LOOPBACK}:{environment['SERVE_PORT']}",
        "ELMYR_API_KEY": api_key,
    }
    pytest = [sys.executable, "-m", "pytest", "-v", "-s", "--timeout=1200", "--elsewhere", *TESTS]
    with told("pytest"):
        return subprocess.run(
            pytest, cwd=ROOT, env=inherited_environment({**environment, **reach})
        ).returncode


def free_ports() -> dict[str, str]:
    """A free port of loopback for each that the compose file publishes."""
    reserved = [reserve() for _ in PUBLISHED]
    ports = {name: str(number(one)) for name, one in zip(PUBLISHED, reserved, strict=True)}
    for one in reserved:
        one.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
