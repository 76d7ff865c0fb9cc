"""`python -m services.api`: serve the API on the address that the settings name."""

from __future__ import annotations

import gc

import uvicorn

from services.api.app import create_app
from shared import tracing
from shared.logs import configure_logs
from shared.settings import settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; open event streams get 3 s to end."""
    configure_logs("api")
    config = settings()
    tracing.configure("api", config)
    app = create_app(config)
    gc.freeze()  # 100,000 objects stay: to look through them again holds all requests for 50 ms
    uvicorn.run(
        app,
        host=config.api_host,
        port=config.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    tracing.close()


if __name__ == "__main__":
    main()
