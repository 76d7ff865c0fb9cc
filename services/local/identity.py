"""What a stack keeps from one start to the next: its id, its secrets and its ports."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from pathlib import Path

from pydantic import BaseModel, Field

from services.local.folder import write_secret

IDENTITY_FILE = "identity.json"
OWNER = "local"
"""Whose jobs those of the stack's own API key are."""

# Where people look first; a taken one is replaced by a free one.
FAMILIAR_PORTS = {"api": 8080, "serve": 8000, "dashboard": 8265}


class Identity(BaseModel):
    """The content of `identity.json`, readable by its owner only."""

    stack_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Every process of the stack carries it in its environment."""
    redis_password: str = Field(default_factory=secrets.token_urlsafe)
    s3_access_key: str = Field(default_factory=lambda: secrets.token_hex(10))
    s3_secret_key: str = Field(default_factory=lambda: secrets.token_hex(20))
    ray_token: str = Field(default_factory=lambda: secrets.token_hex(32))
    api_key: str = Field(default_factory=lambda: f"elm_{secrets.token_urlsafe(32)}")
    ports: dict[str, int] = Field(default_factory=lambda: dict(FAMILIAR_PORTS))

    @property
    def api_keys(self) -> str:
        """The API key as the API may know it: its owner and its SHA-256."""
        return f"{OWNER}:{hashlib.sha256(self.api_key.encode()).hexdigest()}"


def load_identity(data_dir: Path) -> Identity:
    """The identity of this folder's stack, a new one in a new folder."""
    path = data_dir / IDENTITY_FILE
    return Identity.model_validate_json(path.read_text()) if path.exists() else Identity()


def save_identity(identity: Identity, data_dir: Path) -> None:
    write_secret(data_dir / IDENTITY_FILE, identity.model_dump_json(indent=2))
