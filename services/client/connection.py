"""Finds out where Elmyr is and which key opens it.

In this order: arguments; ELMYR_URL, ELMYR_SERVE_URL, ELMYR_API_KEY; the `stack.json` that
`elmyr up` keeps in its data folder (ELMYR_DATA_DIR, else `.elmyr`). A local stack's key goes to
that stack only: an address from elsewhere never gets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError

from services.client.errors import NoStack
from shared.errors import InvalidInput
from shared.settings import ClientSettings

STACK_FILE = "stack.json"


@dataclass(frozen=True, slots=True)
class Connection:
    """Addresses (without a slash at the end) and the API key; the key never shows in a repr."""

    api_url: str
    serve_url: str | None
    api_key: SecretStr | None


class _Stack(BaseModel):
    """What a client reads of a stack's state file."""

    api_url: str
    serve_url: str
    api_key: SecretStr


def find(
    api_url: str | None = None,
    serve_url: str | None = None,
    api_key: str | None = None,
    *,
    data_dir: Path | None = None,
) -> Connection:
    """The connection that arguments, environment and data folder give, in this order.

    Raises NoStack when none of them names an API, InvalidInput for what is no http address.
    """
    settings = ClientSettings()
    api_url = api_url or settings.url
    serve_url = serve_url or settings.serve_url
    key = SecretStr(api_key) if api_key else settings.api_key
    if api_url is not None:
        return Connection(_bare(api_url), _bare(serve_url) if serve_url else None, key)
    folder = data_dir or settings.data_dir
    stack = _stack(folder / STACK_FILE)
    if stack is None:
        raise NoStack(
            f"no stack in {folder}: start one with `elmyr up`, or point ELMYR_URL and "
            "ELMYR_API_KEY to a running one"
        )
    return Connection(
        _bare(stack.api_url), _bare(serve_url or stack.serve_url), key or stack.api_key
    )


def _stack(path: Path) -> _Stack | None:
    try:
        return _Stack.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise NoStack(f"{path} is not the state of a stack: stop it, then `elmyr up`") from error


def _bare(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{url!r} is no address: it should look like http://127.0.0.1:8080")
    return url.rstrip("/")
