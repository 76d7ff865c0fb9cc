"""The API's description as a file: `python -m services.api.openapi > tests/unit/openapi.json`.

A test holds that file against the code, so that no route changes unseen.
"""

from __future__ import annotations

import json
import sys

from services.api.app import create_app
from shared.settings import Settings


def document() -> str:
    """The OpenAPI document, as it is kept in the tests; needs neither Redis nor S3."""
    return json.dumps(create_app(Settings()).openapi(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
