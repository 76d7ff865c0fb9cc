"""Where the things of the API and of serving lie."""

from __future__ import annotations

import re

from shared.errors import InvalidInput

SEGMENT = re.compile(r"[a-z0-9][a-z0-9._@-]*")
"""Names, ids, versions, and references to models (`name@alias`)."""


def route(*segments: str | int) -> str:
    """`/v1/` and the segments behind it.

    Raises InvalidInput for one that would lead elsewhere, as `..` and `a/b` would.
    """
    for segment in segments:
        if not SEGMENT.fullmatch(str(segment)):
            raise InvalidInput(
                f"{segment!r} is no name: take lower-case letters, digits, '.', '_' and '-'"
            )
    return "/v1/" + "/".join(map(str, segments))
