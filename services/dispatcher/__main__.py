"""Run a dispatcher: `python -m services.dispatcher`. SIGTERM ends it; what it started goes on."""

from __future__ import annotations

import signal
import sys

import structlog

from services.dispatcher.dispatcher import Dispatcher
from services.dispatcher.endpoint import endpoint
from shared import tracing
from shared.errors import UnsafeStore
from shared.logs import configure_logs
from shared.settings import settings

log = structlog.get_logger()


def main() -> int:
    """Dispatch until SIGTERM or SIGINT; 1 when the stores are not safe to work on or the endpoint's
    port is taken."""
    configure_logs("dispatcher")
    config = settings()
    tracing.configure("dispatcher", config)
    dispatcher = Dispatcher(config)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: dispatcher.stop())
    try:
        with endpoint(config.metrics_host, config.metrics_port, dispatcher.telemetry):
            dispatcher.run()
    except (UnsafeStore, OSError) as error:  # OSError: the port of its endpoint is taken
        log.error("refused to start", error=str(error))
        return 1
    finally:
        tracing.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
