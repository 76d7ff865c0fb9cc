"""The house stays readable: short files, each named by what it does."""

from __future__ import annotations

from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
ROOMS = ("shared", "services", "workers", "tests")
MAX_LINES = 500
MEDIAN_LINES = 200
NAMELESS = {"utils", "util", "common", "helpers", "helper", "misc"}

FILES = [
    path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*"))
    if path.suffix in {".py", ".lua", ".html", ".js", ".css"} and "vendor" not in path.parts
]
"""What people write and read here: not the libraries that the page brings along."""


def num_lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_no_file_is_long() -> None:
    long = {str(path.relative_to(ROOT)): num_lines(path) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES} == {}


def test_the_median_file_is_short() -> None:
    assert median(num_lines(path) for path in FILES if num_lines(path)) < MEDIAN_LINES


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    names = [path.relative_to(ROOT) for path in FILES]
    assert [name for name in names if NAMELESS & {*name.parts, name.stem}] == []
