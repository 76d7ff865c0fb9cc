"""Does a server on loopback answer? Asked over bare sockets: that needs no client library."""

from __future__ import annotations

import http.client
import socket

from services.local.ports import LOOPBACK

ANSWER_S = 2.0


def redis_answers(port: int, password: str) -> bool:
    """True when Redis takes commands; while it loads its append-only file it answers -LOADING."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=ANSWER_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            with connection.makefile("rb") as answer:
                return [answer.readline(), answer.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
    except OSError:
        return False


def http_ok(port: int, path: str, *, token: str = "") -> bool:
    """True when GET answers 200, with `token` as the bearer if there is one."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=ANSWER_S)
    try:
        connection.request(
            "GET", path, headers={"Authorization": f"Bearer {token}"} if token else {}
        )
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
