"""How commands speak: data on stdout, everything said to people on stderr.

On a terminal a list is a table with relative times; elsewhere its rows are tab-separated with
RFC 3339 times, for other programs. `-o json`, `jsonl` and `id` are the same on both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shared import clock

T = TypeVar("T", bound=BaseModel)
Cell = str | int | float | datetime | None

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
"""Everything that moves a cursor or changes a terminal; names and logs come from anywhere."""


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    ID = "id"


OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="How to print it.", show_default=True)
]


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """How things of one kind are printed: what their id is, and a table's columns by header."""

    id: Callable[[T], str]
    columns: dict[str, Callable[[T], Cell]]


def show(items: Iterable[T], view: View[T], output: Output) -> None:
    """Print a list."""
    if output is Output.JSONL:
        for item in items:
            write(item.model_dump_json())
    elif output is Output.JSON:
        write(f"[{','.join(item.model_dump_json() for item in items)}]")
    elif output is Output.ID:
        for item in items:
            write(view.id(item))
    elif sys.stdout.isatty():
        table = Table(*view.columns, box=None, pad_edge=False, header_style="bold")
        for item in items:
            table.add_row(*(Text(_relative(cell)) for cell in _cells(item, view)))
        Console(highlight=False).print(table)
    else:
        for item in items:
            write("\t".join(_absolute(cell) for cell in _cells(item, view)))


def show_one(item: T, view: View[T], output: Output) -> None:
    """Print one thing; as a table it is a line for each column that has something to say."""
    if output is not Output.TABLE:
        show([item], view, Output.JSONL if output is Output.JSON else output)
        return
    text = _relative if sys.stdout.isatty() else _absolute
    width = max(map(len, view.columns)) + 2
    for header, cell in zip(view.columns, _cells(item, view), strict=True):
        if cell not in (None, ""):
            write(f"{header.lower() + ':':{width}}{text(cell)}")


def write(line: str) -> None:
    """Print a line of data."""
    typer.echo(line)


def say(sentence: str, *, style: str = "") -> None:
    """Tell people something, on stderr."""
    text = "\n".join(clean(line) for line in sentence.splitlines())
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(text, style))


def clean(text: str) -> str:
    """The text without what a terminal would obey."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def dimensions(size: int, channels: int) -> str:
    """What square pictures of `size` pixels a side are: `32 px grey`, `64 px colour`."""
    return f"{size} px {'grey' if channels == 1 else 'colour'}"


def duration(seconds: float) -> str:
    """A length of time in at most two units: `45s`, `2m`, `1h05m`, `3d`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d"


def _cells(item: T, view: View[T]) -> list[Cell]:
    return [column(item) for column in view.columns.values()]


def _relative(cell: Cell) -> str:
    if isinstance(cell, datetime):
        return f"{duration((clock.now() - cell).total_seconds())} ago"
    return _plain(cell)


def _absolute(cell: Cell) -> str:
    if isinstance(cell, datetime):
        return cell.isoformat(timespec="seconds").replace("+00:00", "Z")
    return _plain(cell).replace("\t", " ")


def _plain(cell: Cell) -> str:
    return "" if cell is None else clean(str(cell))
