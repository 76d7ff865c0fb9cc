"""Free TCP ports on loopback. What listens on them is nobody's business here."""

from __future__ import annotations

import secrets
import socket

LOOPBACK = "127.0.0.1"

# Below Linux's ephemeral range (from 32768): no outgoing connection takes a port between our choice
# and the start of its server.
FIRST_PORT, LAST_PORT = 20_000, 22_700


def reserve(preferred: int = 0, *, also: int = 0) -> socket.socket:
    """A socket that listens on a free port, so that nobody else takes it until it is closed.

    The port is the preferred one if that is free, else a random one. The port `also` above it is
    free then, too (some servers derive a second port from the first). Raises OSError when none is
    left.
    """
    others = secrets.SystemRandom().sample(range(FIRST_PORT, LAST_PORT), LAST_PORT - FIRST_PORT)
    for port in [preferred, *others]:
        reserved = _listen(port) if port else None
        if reserved and (not also or _is_free(port + also)):
            return reserved
        if reserved:
            reserved.close()
    raise OSError(f"no free port between {FIRST_PORT} and {LAST_PORT}")


def number(reserved: socket.socket) -> int:
    """The port on which a socket listens."""
    return int(reserved.getsockname()[1])


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener


def _is_free(port: int) -> bool:
    listener = _listen(port)
    if listener:
        listener.close()
    return listener is not None
