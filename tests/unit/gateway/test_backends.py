# SPDX-License-Identifier: GPL-3.0-or-later
"""Several LLM servers behind one gateway: who gets a request, and who never hears of it."""

from __future__ import annotations

import json
import threading
import typing as t
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import NGINX
from .stage import GO_ON, Answer, Heard, Say, Stage, Upstream, free_port

CHAT = b'{"model":"tiny","messages":[]}'


class Servers:
    """LLM servers of some names, and nginx before them."""

    def __init__(self, folder: Path, stack: ExitStack, names: str, **fields: t.Any) -> None:
        self.ports = {name: free_port() for name in names}
        self.fields: dict[str, dict[str, t.Any]] = {name: fields.get(name, {}) for name in names}
        self.says: dict[str, Callable[[Heard], Say]] = {}
        self._stack = stack
        self._running: dict[str, Upstream] = {}
        for name in names:
            self.start(name)
        self.stage = Stage(folder, gateway_backends=self.backends())
        stack.callback(self.stage.close)

    def backends(self, **drain: bool) -> list[dict[str, t.Any]]:
        return [
            {"address": f"127.0.0.1:{port}", **self.fields[name], "drain": drain.get(name, False)}
            for name, port in self.ports.items()
        ]

    def start(self, name: str) -> None:
        def answer(heard: Heard) -> Say:
            return self.says.get(name, lambda _heard: Say(body=name.encode()))(heard)

        self._running[name] = Upstream(("127.0.0.1", self.ports[name]), answer)
        self._stack.callback(self._running[name].close)

    def heard(self) -> dict[str, int]:
        return {name: len(one.heard) for name, one in self._running.items() if one.heard}

    def forget(self) -> None:
        for one in self._running.values():
            one.heard.clear()

    def judged(self, model: str) -> None:
        """Have the policy hop let requests go on as ones for this model."""
        said = {**GO_ON, **({"X-Llm-Model": model} if model else {})}
        self.stage.hop_says = lambda heard: Say(200, said)

    def chat(self, **headers: str) -> Answer:
        return self.stage.ask("POST", "/api/chat", CHAT, **headers)

    def chats(self, number: int) -> Counter[str]:
        """Return how many of several requests at a time got which answer."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _unused: self.chat(), range(number)))
        assert {one.status for one in answers} == {200}
        return Counter(one.body.decode() for one in answers)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Servers]]:
    if NGINX is None:
        pytest.skip("nginx is not installed here: its configuration was rendered, not run")
    with ExitStack() as stack:
        yield lambda names, **fields: Servers(tmp_path, stack, names, **fields)


def hang_up(heard: Heard) -> Say:
    raise ConnectionError


def test_who_cannot_be_reached_costs_no_request(make: Callable[..., Servers]) -> None:
    servers = make("ab")
    assert servers.chats(20) == {"a": 10, "b": 10}
    # Nobody listens at c's port: nothing was ever started there.
    servers.ports["c"], servers.fields["c"] = free_port(), {}
    servers.stage.apply(gateway_backends=servers.backends(a=True))
    assert servers.chats(40) == {"b": 40}
    # Three failures, and it is left alone for a while.
    errors = servers.stage.errors()
    assert 1 <= errors.count("connect() failed") <= 3 + 8
    assert "no live upstreams" not in errors
    servers.start("c")
    servers.stage.apply(gateway_backends=servers.backends(a=True))
    assert servers.chats(20) == {"b": 10, "c": 10}


def test_what_was_sent_is_not_sent_to_another(make: Callable[..., Servers]) -> None:
    servers = make("ab")
    servers.says = {"a": hang_up, "b": hang_up}
    for _unused in range(2):
        servers.forget()
        answer = servers.chat()
        assert answer.status == 502
        assert json.loads(answer.body)["error"]["type"] == "upstream_error"
        assert sum(servers.heard().values()) == 1


def test_a_kept_connection_that_ends_sends_nothing_twice(make: Callable[..., Servers]) -> None:
    servers = make("ab")
    assert servers.chats(4).total() == 4
    servers.forget()
    servers.says = {"a": hang_up, "b": hang_up}
    assert servers.chat().status == 502
    assert sum(servers.heard().values()) == 1


def test_the_last_one_is_always_tried(make: Callable[..., Servers]) -> None:
    """Failures of requests do not take the only server out of the group."""
    servers = make("ab")
    servers.stage.apply(gateway_backends=servers.backends(a=True))
    servers.says = {"b": hang_up}
    assert {servers.chat().status for _unused in range(5)} == {502}
    servers.says = {}
    assert servers.chats(5) == {"b": 5}
    assert "no live upstreams" not in servers.stage.errors()


def test_an_answer_of_a_servers_is_the_clients(make: Callable[..., Servers]) -> None:
    """Also one that says that it is busy: the next server may be just as busy."""
    servers = make("ab")
    servers.says = dict.fromkeys("ab", lambda heard: Say(503, body=b"loading"))
    answer = servers.chat()
    assert (answer.status, answer.body) == (503, b"loading")
    assert sum(servers.heard().values()) == 1


def test_a_drained_server_ends_its_stream_and_gets_nothing_new(
    make: Callable[..., Servers],
) -> None:
    servers = make("ab")
    begun, go_on, streams = threading.Event(), threading.Event(), []

    def pieces() -> Iterator[bytes]:
        yield b"first "
        while not go_on.wait(0.2):
            yield b"."
        yield b" last"

    def stream(heard: Heard) -> Say:
        begun.set()
        return Say(pieces=pieces())

    servers.stage.apply(gateway_backends=servers.backends(b=True))
    servers.says = {"a": stream}
    client = threading.Thread(target=lambda: streams.append(servers.chat()))
    client.start()
    try:
        assert begun.wait(5)
        servers.says = {}
        with ThreadPoolExecutor(1) as pool:
            many = pool.submit(lambda: [servers.chats(20) for _unused in range(3)])
            servers.stage.apply(gateway_backends=servers.backends(a=True))
            many.result(30)
        servers.forget()
        assert servers.chats(20) == {"b": 20}
        assert servers.heard() == {"b": 20}
        assert not streams
    finally:
        go_on.set()
        client.join()
    (answer,) = streams
    assert answer.status == 200
    assert (answer.body[:6], answer.body[-5:]) == (b"first ", b" last")
    servers.stage.apply(gateway_backends=servers.backends())
    assert servers.chats(20) == {"a": 10, "b": 10}


MODELS = {"b": {"models": ["tiny"]}, "c": {"models": ["TINY:latest", "big.v1:7b"]}}


def test_the_judged_model_says_who_answers(make: Callable[..., Servers]) -> None:
    servers = make("abc", **MODELS)
    for model, expected in {
        "tiny:latest": {"b", "c"},
        "big.v1:7b": {"c"},
        "bigxv1:7b": {"a"},
        "other:latest": {"a"},
        "tiny:latest2": {"a"},
        "-": {"a"},
    }.items():
        servers.judged(model)
        assert set(servers.chats(6)) == expected, model
    servers.judged("-")
    assert servers.stage.ask("GET", "/api/tags").body == b"a"


def test_no_client_says_who_answers(make: Callable[..., Servers]) -> None:
    servers = make("abc", **MODELS)
    servers.judged("other:latest")
    forged = dict.fromkeys(("X_Llm_Model", "Llm_Model", "X_Llm_Group"), "tiny:latest")
    for _unused in range(6):
        answer = servers.chat(**forged)
        assert answer.body == b"a"
        assert "x-llm-model" not in answer.headers
    assert servers.heard() == {"a": 6}


def test_who_has_no_server_is_heard_by_nobody(make: Callable[..., Servers]) -> None:
    """The key validator refuses such a model; one that says nothing knows of no groups."""
    servers = make("bc", **MODELS)
    for model in ("", "other:latest", "tiny:latest\tb", "llm_server_1"):
        servers.judged(model)
        answer = servers.chat()
        assert answer.status == 503
        assert json.loads(answer.body)["error"]["type"] == "unavailable"
    assert servers.heard() == {}
    servers.judged("-")
    assert servers.stage.ask("GET", "/api/tags").status == 200
