"""`python -m services.api`: serve the API on the address that the settings name."""

from __future__ import annotations

import uvicorn

from services.api.app import create_app
from shared.logs import configure_logs
from shared.settings import settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; open event streams get 3 s to end."""
    configure_logs("api")
    config = settings()
    uvicorn.run(
        create_app(config),
        host=config.api_host,
        port=config.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
