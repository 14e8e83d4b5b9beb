# SPDX-License-Identifier: GPL-3.0-or-later
"""multipart/form-data (RFC 7578, RFC 2046) in the one spelling that all clients use.

Go's mime/multipart also takes a preamble, bare line feeds, blanks after a boundary, folded and
repeated headers, quoted-printable, RFC 2231 parameters. All of that is refused: what is left,
every parser reads alike.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from .errors import BodyError

_CONTENT_TYPE = re.compile(
    rb"multipart/form-data *; *boundary="
    rb"(?:([A-Za-z0-9'+_.-]{1,70})|\"([A-Za-z0-9'+_.=-]{1,70})\")",
    re.IGNORECASE,
)
_DISPOSITION = re.compile(
    rb'form-data; ?name="([A-Za-z0-9_.-]{1,64}(?:\[\])?)"'
    rb'(?:; ?filename="([^"\\\x00-\x1f\x7f]{1,512})")?'
)
_HEADER = re.compile(rb"([A-Za-z-]{1,64}): ?([^\x00-\x1f\x7f]{1,1024})")
_PART_TYPE = re.compile(
    rb"(?!multipart/)[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}"
    rb"(?:; ?(?:charset=(?:utf-8|us-ascii)|codecs=\"?[a-z0-9.,+-]{1,64}\"?))?"
)
_PLAIN_ENCODINGS = (b"binary", b"8bit", b"7bit")
_MOST_PARTS = 64

_UNREADABLE = "The form is not multipart/form-data in its plain spelling."


@dataclass(frozen=True, slots=True)
class File:
    """An uploaded file: its size in bytes, its SHA-256."""

    size: int
    sha256: str


def parse_form(content_type: bytes, body: bytes) -> dict[str, str | list[str] | File]:
    """Return the fields of a form: text, or a file; a list of texts when the name ends in `[]`.

    Raises BodyError for anything that another parser might read in another way.
    """
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None:
        raise BodyError("The Content-Type must be multipart/form-data with a plain boundary.")
    fields: dict[str, str | list[str] | File] = {}
    for part in _split(body, match[1] or match[2]):
        name, value = _read_part(part)
        if not name.endswith("[]"):
            if name in fields:
                raise BodyError("The form has the same field twice.")
            fields[name] = value
        elif isinstance(value, str):
            fields.setdefault(name, []).append(value)  # type: ignore[union-attr]
        else:
            raise BodyError("The form has a list of files.")
    return fields


def _split(body: bytes, boundary: bytes) -> list[bytes]:
    """Return the parts, each from its headers on.

    The delimiter may stand nowhere else, whatever follows it: readers differ in what they take
    for the end of a boundary.
    """
    before, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if before or len(parts) < 2 or parts.pop() not in (b"--", b"--\r\n"):
        raise BodyError(_UNREADABLE)
    if len(parts) > _MOST_PARTS:
        raise BodyError(f"The form has more than {_MOST_PARTS} fields.")
    if not all(part.startswith(b"\r\n") for part in parts):
        raise BodyError(_UNREADABLE)
    return parts


def _read_part(part: bytes) -> tuple[str, str | File]:
    head, end, content = part.partition(b"\r\n\r\n")
    if not end:
        raise BodyError(_UNREADABLE)
    # The part starts with the line end of its boundary.
    headers = _read_headers(head.split(b"\r\n")[1:])
    match = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    if match is None:
        raise BodyError("The form has a field without a plain name.")
    name = match[1].decode()
    try:
        if match[2] is not None:
            match[2].decode()
            return name, File(len(content), hashlib.sha256(content).hexdigest())
        return name, content.decode()
    except UnicodeError:
        raise BodyError("The form is not valid UTF-8.") from None


def _read_headers(lines: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None or match[1].lower() in headers:
            raise BodyError(_UNREADABLE)
        headers[match[1].lower()] = match[2]
    if any(not _is_plain_header(name, value) for name, value in headers.items()):
        raise BodyError("The form has a field with an unusual header.")
    return headers


def _is_plain_header(name: bytes, value: bytes) -> bool:
    lowered = value.lower()
    if name == b"content-type":
        return _PART_TYPE.fullmatch(lowered) is not None
    if name == b"content-transfer-encoding":
        return lowered in _PLAIN_ENCODINGS
    return name == b"content-disposition" or (name == b"content-length" and value.isdigit())
