"""What `elmyr status` shows: the addresses, the key and each part's state."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from services.local.folder import write_secret

STATE_FILE = "stack.json"


class PartState(BaseModel):
    """One part of the stack."""

    name: str
    state: Literal["waiting", "starting", "running", "failed", "external"] = "waiting"
    """`failed`: it has ended and is being restarted; `external`: it is not ours."""
    pid: int | None = None
    log: Path | None = None
    error: str | None = None
    """Why it failed, with the end of its log."""
    memory_bytes: int | None = None
    """Its processes' share of the memory (PSS), measured by `status`."""


class StackState(BaseModel):
    """The content of `stack.json`: there while a stack runs, readable by its owner only."""

    state: Literal["starting", "running", "stopping", "stopped"]
    api_url: str
    serve_url: str
    dashboard_url: str
    api_key: str
    data_dir: Path
    stack_id: str
    supervisor_pid: int | None = None
    parts: list[PartState] = []

    def part(self, name: str) -> PartState:
        """Raises StopIteration for a name that is no part."""
        return next(part for part in self.parts if part.name == name)


def save_state(state: StackState) -> None:
    write_secret(state.data_dir / STATE_FILE, state.model_dump_json(indent=2))


def load_state(data_dir: Path) -> StackState | None:
    """The state that the stack on this folder wrote last; None when none runs."""
    path = data_dir / STATE_FILE
    try:
        return StackState.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
