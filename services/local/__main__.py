"""`python -m services.local DATA_DIR [PART ...]`: what `elmyr up` runs, or some parts of it."""

from __future__ import annotations

import sys
from pathlib import Path

from services.local.parts import PARTS
from services.local.stack import run_foreground
from shared.errors import ElmyrError


def main() -> None:
    """Exit code 1, with the reason on stderr, when the stack does not start."""
    try:
        run_foreground(Path(sys.argv[1]), parts=sys.argv[2:] or list(PARTS))
    except ElmyrError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
