"""The parts of a multipart/form-data body (RFC 7578), split in time linear to its size.

Starlette reads forms with a package that serving does not need for anything else.
"""

from __future__ import annotations

from email.message import Message

from shared.errors import InvalidInput

MAX_PARTS = 16


def parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """Each part's content under its name; of parts of one name the last.

    Raises InvalidInput: the body is not what its Content-Type says, or has more than MAX_PARTS.
    """
    boundary = _header(content_type).get_boundary()
    if not boundary:
        raise InvalidInput("multipart/form-data needs a boundary in its Content-Type")
    delimiter = b"\r\n--" + boundary.encode(errors="replace")
    # The first delimiter may stand at the very start; behind the last comes "--".
    _, *pieces = (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)
    if not pieces or not pieces[-1].startswith(b"--"):
        raise InvalidInput(
            f"the multipart body is cut short, or has more than {MAX_PARTS} parts: "
            "end it with its boundary"
        )
    return dict(_named(piece) for piece in pieces[:-1])


def _named(piece: bytes) -> tuple[str, bytes]:
    """The name and the content of a part, which starts behind its delimiter."""
    head, blank, content = piece.partition(b"\r\n\r\n")
    for line in head.decode(errors="replace").split("\r\n"):
        field, _, value = line.partition(":")
        name = _header(value.strip()).get_param("name")
        if field.lower() == "content-disposition" and blank and isinstance(name, str):
            return name, content
    raise InvalidInput('a part of the multipart body has no Content-Disposition with name="..."')


def _header(value: str) -> Message:
    """A header's value, taken apart by the standard library."""
    message = Message()
    message["Content-Type"] = value
    return message
