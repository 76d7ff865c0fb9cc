"""Keeps serving deployed on a Ray cluster: `python -m services.serving.keeper`.

A head that was started anew has forgotten what it served, and nobody but us would tell it again. On
Kubernetes KubeRay does this, by the same call. Only HTTP is spoken: Ray and torch are not imported.
"""

from __future__ import annotations

import signal
from threading import Event
from typing import Any

import httpx2
import structlog

from shared.logs import configure_logs
from shared.settings import Settings, settings

LOOK_S = 5.0
TIMEOUT_S = 30.0
"""Ray starts Serve's controller before it answers the first deployment."""
PATH = "/api/serve/applications/"
APPLICATIONS = {"interactive": ("app", "/"), "bulk": ("bulk", "/bulk")}
"""Name -> its variable in services/serving/app.py, and its route."""

log = structlog.get_logger()


def wanted(settings: Settings) -> dict[str, Any]:
    """What Serve is told to run, in the words of its declarative configuration."""
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": settings.serve_host, "port": settings.serve_port},
        "applications": [
            {"name": name, "route_prefix": route, "import_path": f"services.serving.app:{variable}"}
            for name, (variable, route) in APPLICATIONS.items()
        ],
    }


def keep(settings: Settings, stop: Event) -> None:
    """Until `stop` is set: deploy what is not there, and wait for a head that does not answer."""
    headers = {"Authorization": f"Bearer {settings.ray_auth_token.get_secret_value()}"}
    answering: bool | None = None
    with httpx2.Client(
        base_url=settings.ray_dashboard_url,
        headers=headers,
        timeout=TIMEOUT_S,
        trust_env=False,  # a proxy of the environment is for the world outside
    ) as ray:
        while not stop.is_set():
            try:
                deploy_missing(ray, settings)
            except httpx2.HTTPError as error:
                if answering is not False:
                    log.warning("Ray does not answer", error=str(error) or repr(error))
                answering = False
            else:
                if answering is False:
                    log.info("Ray answers again")
                answering = True
            stop.wait(LOOK_S)


def deploy_missing(ray: httpx2.Client, settings: Settings) -> bool:
    """Deploy the applications unless Serve has all of them; True if it was told to.

    Raises httpx2.HTTPError: Ray does not answer, or refuses.
    """
    there = ray.get(PATH).raise_for_status().json()["applications"]
    states = {name: there.get(name, {}).get("status", "MISSING") for name in APPLICATIONS}
    if not {"MISSING", "DEPLOY_FAILED"} & set(states.values()):
        return False
    log.info("deploying", **states)
    ray.put(PATH, json=wanted(settings)).raise_for_status()
    return True


def main() -> None:
    configure_logs("keeper")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    keep(settings(), stop)


if __name__ == "__main__":
    main()
