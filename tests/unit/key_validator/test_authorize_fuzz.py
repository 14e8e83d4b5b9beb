# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever comes to /authorize: nothing goes on but a good key's request, judged and on record."""

from __future__ import annotations

import asyncio
import itertools
import json
import typing as t

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("httptools")

from llm_key_validator.config import Config
from llm_key_validator.http_edge import Listener
from llm_key_validator.journal import Journal, RefusalLog
from llm_key_validator.keys import generate_key
from llm_key_validator.service import Service

from .conftest import NOW, gateway_request
from .test_authorize import Hop
from .test_http_edge import Transport

STRANGER = generate_key()
# The last word of each list is the one that a good request has.
KEYS = ["", "KEY ", "llmk_", STRANGER, "KEY"]
SCHEMES = ["Basic ", "Bearer", "bearer  ", "Bearer "]
NAMES = ["secret", "tiny:secret", "TINY", "tiny:local", " tiny", "", "tiny"]
LINES = [
    gateway_request(path=b"/api/pull"),
    gateway_request(path=b"/api/tags", endpoint_class=b"read"),
    gateway_request(method=b"GET"),
    gateway_request(client_address=b"::1"),
    b"",
    gateway_request(),
]
TYPES = ["text/plain", "application/json; charset=latin1", "", "application/json"]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
MESSAGES = st.just([{"role": "user", "content": "a thought"}]) | VALUES
MEMBERS = st.fixed_dictionaries(
    {"model": st.sampled_from(NAMES) | VALUES, "messages": MESSAGES},
    optional={
        "options": st.fixed_dictionaries({}, optional={"num_predict": SCALARS}) | VALUES,
        "keep_alive": SCALARS,
        "MODEL": st.sampled_from(NAMES),
        "stream": st.booleans(),
    },
)
BODIES = st.one_of(
    MEMBERS.map(lambda members: json.dumps(members).encode()),
    st.tuples(MEMBERS, st.binary(max_size=4)).map(lambda two: json.dumps(two[0]).encode() + two[1]),
    st.binary(max_size=60),
    st.sampled_from(NAMES).map(
        lambda name: b'{"model":"secret","model":"%b","messages":[]}' % name.encode()
    ),
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("X-Gateway-Request", "X-API-Key", "Authorization", "Content-Type", "Cookie"),
                *("Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "X-Limit-Key"),
                "Content-Encoding",
            ]
        ),
        st.sampled_from([STRANGER, "chunked", "0", "100-continue", "h2c", "x", "KEY"]),
    ),
    max_size=2,
)


class Gate:
    """The service from its socket to its audit log, for one key that may use one model."""

    def __init__(self) -> None:
        self.hop = Hop(models=["tiny"], tier="small")
        self.log: list[str] = []
        journal = Journal(self.log.append, with_levels=False)
        service = Service(
            self.hop.source,
            authorizer=self.hop.authorizer,
            metrics=self.hop.metrics,
            refusals=RefusalLog(journal, 1000),
            journal=journal,
            clock=lambda: NOW,
        )
        self.listener = Listener(service, Config(), lambda _unused: True)

    async def feed(self, *pieces: bytes) -> bytes:
        connection, transport = self.listener.make_connection(), Transport()
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
        return transport.written


class Sent(t.NamedTuple):
    """One request. KEY stands for the gate's key."""

    line: bytes = LINES[-1]
    kind: str = TYPES[-1]
    scheme: str = SCHEMES[-1]
    key: str = KEYS[-1]
    more: t.Sequence[tuple[str, str]] = ()
    body: bytes = b'{"model":"tiny","messages":[]}'

    def stream(self, key: str) -> bytes:
        """As bytes."""
        named = [
            ("Authorization", f"{self.scheme}{self.key}"),
            ("X-Gateway-Request", self.line.decode()),
            ("Content-Type", self.kind),
            ("Content-Length", str(len(self.body))),
            *self.more,
        ]
        head = "".join(f"{name}: {value}\r\n" for name, value in named).replace("KEY", key)
        return f"POST /authorize HTTP/1.1\r\nHost: v\r\n{head}\r\n".encode() + self.body


def is_good(sent: Sent) -> bool:
    """Whether all that is said of a key is said of the right one, by the rules in decision.py."""
    said = [f"{sent.scheme}{sent.key}"]
    said += [value for name, value in sent.more if name == "Authorization"]
    words = [one.split() for one in said]
    others = [value for name, value in sent.more if name == "X-API-Key"]
    bearers = all(len(two) == 2 and two[0].lower() == "bearer" and two[1] == "KEY" for two in words)
    return bearers and all(one == "KEY" for one in others)


def mostly_good(words: t.Sequence[t.Any]) -> st.SearchStrategy[t.Any]:
    """The rest has to be good for one thing that is not to show."""
    return st.just(words[-1]) | st.just(words[-1]) | st.sampled_from(words)


def once(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    assert len(dict(pairs)) == len(pairs), "a key stands there twice"
    return dict(pairs)


SENT = st.builds(
    Sent,
    mostly_good(LINES),
    mostly_good(TYPES),
    mostly_good(SCHEMES),
    mostly_good(KEYS),
    st.just([]) | HEADERS,
    BODIES | st.just(Sent().body),
)


@settings(deadline=None, max_examples=300)
@given(SENT, st.lists(st.integers(0, 700), max_size=3))
@example(Sent(body=b'{"model":"Tiny","messages":[]}'), [])
@example(Sent(body=b'{"model":"secret","messages":[]}'), [])
@example(Sent(body=b'{"model":"tiny","messages":[],"options":{"num_predict":11}}'), [])
@example(Sent(key=STRANGER), [])
@example(Sent(more=[("Authorization", f"Bearer {STRANGER}")]), [])
@example(Sent(more=[("X-API-Key", STRANGER)]), [])
@example(Sent(more=[("Content-Encoding", "x")]), [])
def test_nothing_goes_on_but_a_good_request_on_record(sent: Sent, cuts: list[int]) -> None:
    async def run() -> tuple[Gate, bytes]:
        gate = Gate()
        stream = sent.stream(gate.hop.key)
        places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        return gate, await gate.feed(*(stream[a:b] for a, b in itertools.pairwise(places)))

    gate, answer = asyncio.run(run())
    requests = [one for one in gate.hop.audit.records if one["event.action"] == "request"]
    assert not any("internal_error" in text for text in gate.log)
    assert gate.listener.buffered == 0
    if b"X-Accel-Redirect" not in answer:
        assert requests == []
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 503 "))
        return
    assert is_good(sent)
    assert "Content-Encoding" not in dict(sent.more)
    assert answer.count(b"HTTP/1.1 ") == 1
    (request,) = requests
    assert request["gen_ai.request.model"] == "tiny:latest"
    asked = json.loads(sent.body, object_pairs_hook=once)
    assert asked["model"].lower() in ("tiny", "tiny:latest")
    limit = (asked.get("options") or {}).get("num_predict")
    assert limit is None or 1 <= limit < 11


def test_the_fuzz_can_see_both_ends() -> None:
    """The good example goes on: what is asserted of such answers is not asserted of nothing."""
    gate = Gate()
    assert b"X-Accel-Redirect: @backend" in asyncio.run(gate.feed(Sent().stream(gate.hop.key)))
