"""Lines that say what is being done and how long it took; each step of a long run has one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told(step: str) -> Iterator[None]:
    began_at = time.monotonic()
    say(f"...    {step}")
    yield
    say(f"done   {step}  {time.monotonic() - began_at:.0f} s")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
