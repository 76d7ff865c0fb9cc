"""The sentence encoder, for tests that need the real one; it comes with the extra `text`."""

from __future__ import annotations

import pytest

from shared.errors import InvalidInput
from shared.settings import settings
from shared.text import find_encoder


def _missing() -> str:
    try:
        find_encoder(settings().text_encoder)
    except InvalidInput as error:
        return error.detail
    return ""


needs_encoder = pytest.mark.skipif(bool(_missing()), reason=_missing())
