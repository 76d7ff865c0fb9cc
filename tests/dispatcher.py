"""`python -m tests.dispatcher SETTINGS_FILE`: a dispatcher whose attempts are tests.attempt's."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from services.dispatcher.dispatcher import Dispatcher
from shared.settings import Settings
from tests.dispatching import tiny_attempts


def main() -> None:
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    dispatcher = Dispatcher(settings, ray=tiny_attempts(settings, Path(sys.argv[1])))
    signal.signal(signal.SIGTERM, lambda *_: dispatcher.stop())
    dispatcher.run()


if __name__ == "__main__":
    main()
