"""Deploys serving to the running Ray cluster (RAY_ADDRESS), waits until it answers, and leaves it.

Deploying again replaces the replicas one by one. It does not start Ray: see services/local.
"""

from __future__ import annotations

import logging
import sys
import time

import httpx2
import ray
import structlog
from ray import serve
from ray.serve.config import HTTPOptions

from services.serving.app import app, bulk
from shared.errors import Unavailable
from shared.logs import configure_logs
from shared.settings import Settings, settings

READY_S = 120.0
POLL_S = 0.2

log = structlog.get_logger()


def deploy(settings: Settings) -> None:
    """Deploy both applications and return when they answer over HTTP.

    Raises Unavailable: they do not, within two minutes.
    """
    ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    log.info("starting Ray Serve", host=settings.serve_host, port=settings.serve_port)
    serve.start(http_options=HTTPOptions(host=settings.serve_host, port=settings.serve_port))
    log.info("deploying", applications=["interactive", "bulk"])
    serve.run_many(
        [
            serve.RunTarget(app, name="interactive", route_prefix="/"),
            serve.RunTarget(bulk, name="bulk", route_prefix="/bulk"),
        ],
        wait_for_applications_running=True,
    )
    url = f"http://{settings.serve_host}:{settings.serve_port}"
    _wait_until_ready(url)
    log.info("serving", url=url)


def _wait_until_ready(url: str) -> None:
    """The proxy learns of the replicas a moment after they run."""
    deadline = time.monotonic() + READY_S
    answer = "no answer"
    while time.monotonic() < deadline:
        try:
            answers = [httpx2.get(f"{url}/{path}") for path in ("readyz", "bulk/readyz")]
        except httpx2.TransportError as error:
            answer = repr(error)
        else:
            if all(answer.is_success for answer in answers):
                return
            answer = ", ".join(f"{answer.status_code} {answer.text}" for answer in answers)
        time.sleep(POLL_S)
    raise Unavailable(f"Serve runs but {url} does not answer: {answer}")


def main() -> None:
    configure_logs("serving")
    try:
        deploy(settings())
    except (Unavailable, ConnectionError, RuntimeError) as error:
        log.error("serving could not be deployed", error=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
