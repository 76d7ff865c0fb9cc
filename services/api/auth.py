"""API keys: who calls. A key is `elm_` and 32 random bytes; only its SHA-256 is in the settings.

A fast hash is right for a secret of 256 bits. Everything under /v1 needs a key, unknown paths too;
health, readiness, metrics and the API's own description do not. Owners see each other's jobs: a key
says who asked, not yet what may be seen.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.problems import problem_response
from shared.errors import Unauthorized

PROTECTED = "/v1/"


class KeyRing:
    """The keys that the settings list as `owner:sha256,owner:sha256`."""

    def __init__(self, api_keys: str) -> None:
        """Raises ValueError for an entry that is not `owner:sha256-in-hex`."""
        self._entries: list[tuple[str, bytes]] = []
        for entry in filter(None, (part.strip() for part in api_keys.split(","))):
            owner, _, digest = entry.rpartition(":")
            if not owner or len(bytes.fromhex(digest)) != hashlib.sha256().digest_size:
                raise ValueError("ELMYR_API_KEYS holds an entry that is not owner:sha256")
            self._entries.append((owner, bytes.fromhex(digest)))

    def owner(self, authorization: bytes) -> str:
        """Who sent this Authorization header.

        Raises Unauthorized; how long that takes does not tell how close a key came.
        """
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        owners = [owner for owner, known in self._entries if hmac.compare_digest(known, digest)]
        if scheme.lower() != b"bearer" or not owners:
            raise Unauthorized("send the header `Authorization: Bearer elm_...` with a valid key")
        return owners[0]


class Authentication:
    """Refuses what has no valid key before anything of the request is read."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(PROTECTED):
            headers = dict(scope["headers"])
            try:
                scope["state"]["owner"] = self._keys.owner(headers.get(b"authorization", b""))
            except Unauthorized as error:
                await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
                return
        await self._app(scope, receive, send)


needs_key = Security(HTTPBearer(scheme_name="key", auto_error=False))
"""Tells OpenAPI that a route needs a key; `Authentication` is what checks it."""


async def _owner(request: Request) -> str:
    return str(request.state.owner)


Owner = Annotated[str, Depends(_owner)]
"""Who calls."""
