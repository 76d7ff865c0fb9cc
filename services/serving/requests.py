"""What several endpoints' requests are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

MAX_SEED = 2**32

Label = int | Annotated[str, StringConstraints(max_length=200)]
"""A class by number or by name."""
