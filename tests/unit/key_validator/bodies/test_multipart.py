# SPDX-License-Identifier: GPL-3.0-or-later
"""Forms: the one spelling that is read, and those that readers differ about."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.bodies.errors import BodyError
from llm_key_validator.bodies.multipart import File, parse_form

TYPE = b"multipart/form-data; boundary=XX"
DISPOSITION = b'Content-Disposition: form-data; name="a"'


def field(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="%b"%b\r\n\r\n%b' % (name, more, value)


def form(*parts: bytes, last: bytes = b"--XX--\r\n") -> bytes:
    return b"".join(b"--XX\r\n%b\r\n" % part for part in parts) + last


def test_fields_files_and_lists():
    body = form(
        field(b"model", b"tiny"),
        field(b"file", b"\xff\0\r\n--X", b'; filename="a b.wav"\r\nContent-Type: audio/wav'),
        field(b"g[]", b"1"),
        field(b"g[]", "\u00e9".encode()),
        field(b"empty", b""),
    )
    digest = hashlib.sha256(b"\xff\0\r\n--X").hexdigest()
    assert parse_form(TYPE, body) == {
        "model": "tiny",
        "file": File(7, digest),
        "g[]": ["1", "\u00e9"],
        "empty": "",
    }


@pytest.mark.parametrize(
    "content_type",
    [
        b"Multipart/Form-Data;boundary=XX",
        b'multipart/form-data; boundary="XX"',
    ],
)
@pytest.mark.parametrize("last", [b"--XX--\r\n", b"--XX--"])
def test_spellings_that_clients_use(content_type, last):
    assert parse_form(content_type, form(field(b"a", b"b"), last=last)) == {"a": "b"}


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: text/plain",
        b"content-type: text/plain; charset=UTF-8",
        b"Content-Type: audio/webm;codecs=opus",
        b"Content-Transfer-Encoding: binary",
        b"Content-Length: 1",
    ],
)
def test_plain_headers(header):
    assert parse_form(TYPE, form(DISPOSITION + b"\r\n" + header + b"\r\n\r\nb")) == {"a": "b"}
    assert parse_form(TYPE, form(header + b"\r\n" + DISPOSITION + b"\r\n\r\nb")) == {"a": "b"}


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"application/json",
        b"multipart/mixed; boundary=XX",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=XX; boundary=YY",
        b"multipart/form-data; charset=utf-8; boundary=XX",
        b"multipart/form-data; boundary*=utf-8''XX",
        b"multipart/form-data; boundary=X X",
        b"multipart/form-data; boundary=" + b"X" * 71,
        b"multipart/form-data; boundary=XX\r\n",
    ],
)
def test_content_types_that_are_refused(content_type):
    with pytest.raises(BodyError, match="Content-Type"):
        parse_form(content_type, form(field(b"a", b"b")))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX--\r\n",
        b"x" + form(field(b"a", b"b")),
        b"\r\n" + form(field(b"a", b"b")),
        form(field(b"a", b"b"), last=b""),
        form(field(b"a", b"b"), last=b"--XX"),
        form(field(b"a", b"b"), last=b"--XX--\n"),
        form(field(b"a", b"b")) + b"epilogue",
        form(field(b"a", b"b")) + form(field(b"a", b"c")),
        form(field(b"a", b"b")).replace(b"\r\n", b"\n"),
        form(field(b"a", b"b")).replace(b"--XX\r\n", b"--XX \r\n", 1),
        form(field(b"a", b"x\r\n--XXy")),
        form(field(b"a", b"x\r\n--XX--y")),
        form(DISPOSITION + b"\r\n"),
        form(DISPOSITION + b"\n\nb"),
        form(b"\r\nb"),
        form(b" " + field(b"a", b"b")),
        form(DISPOSITION + b"\r\n folded: x\r\n\r\nb"),
        form(DISPOSITION + b"\r\n" + DISPOSITION + b"\r\n\r\nb"),
        form(DISPOSITION + b"\r\nContent-Type : text/plain\r\n\r\nb"),
        form(DISPOSITION + b"\r\nContent-Type: multipart/mixed\r\n\r\nb"),
        form(DISPOSITION + b"\r\nContent-Type: text/plain; charset=utf-16\r\n\r\nb"),
        form(DISPOSITION + b"\r\nContent-Transfer-Encoding: base64\r\n\r\nYg=="),
        form(DISPOSITION + b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=62"),
        form(DISPOSITION + b"\r\nX-Other: 1\r\n\r\nb"),
        form(DISPOSITION + b"\r\nContent-Length: x\r\n\r\nb"),
        form(b"Content-Type: text/plain\r\n\r\nb"),
        form(b"Content-Disposition: form-data; name=a\r\n\r\nb"),
        form(b"Content-Disposition: form-data; name*=utf-8''a\r\n\r\nb"),
        form(b'Content-Disposition: form-data; name="a"; name="b"\r\n\r\nb'),
        form(b'Content-Disposition: attachment; name="a"\r\n\r\nb'),
        form(field(b"", b"b")),
        form(field(b"a\\b", b"b")),
        form(field(b"a", b"b", b'; filename=""')),
        form(field(b"a", b"b", b'; filename="a\\"b"')),
        form(field(b"a", b"b", b"; filename=b")),
        form(field(b"a", b"b", b'; filename="b"; filename="c"')),
        form(field(b"a", b"b", b"; filename*=utf-8''b")),
        form(field(b"a", b"b", b'; filename="\xff"')),
        form(field(b"a", b"\xff")),
        form(field(b"a", b"b"), field(b"a", b"b")),
        form(field(b"a", b"b"), field(b"a", b"c", b'; filename="d"')),
        form(field(b"a[]", b"b", b'; filename="d"')),
        form(*[field(b"a%d" % number, b"b") for number in range(65)]),
    ],
)
def test_bodies_that_are_refused(body):
    with pytest.raises(BodyError, match="form"):
        parse_form(TYPE, body)


def test_a_large_body_of_near_boundaries_takes_no_time():
    started = time.process_time()
    with pytest.raises(BodyError):
        parse_form(TYPE, b"--XX\r\n" + b"\r\n--X" * 500_000)
    with pytest.raises(BodyError):
        parse_form(TYPE, form(b"a: " + b"b" * 2_000_000))
    with pytest.raises(BodyError):
        parse_form(TYPE, b"--XX\r\n" * 300_000)
    assert time.process_time() - started < 0.5


@given(st.dictionaries(st.from_regex(r"\A[a-z]{1,8}\Z"), st.text(), min_size=1, max_size=5))
def test_what_is_written_is_read(fields):
    boundary = b"0123456789abcdef"
    body = form(*[field(name.encode(), value.encode()) for name, value in fields.items()])
    body = body.replace(b"--XX", b"--" + boundary)
    assert parse_form(b"multipart/form-data; boundary=" + boundary, body) == fields
