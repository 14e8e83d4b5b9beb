# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an LLM server answers behind a port: a relay need not say in its command what it does."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.listener_checks import Listener
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS

__all__ = ("answers_as", "place_of", "who_answers")

_TIMEOUT = 2.0
# All of them together: one that sends a byte now and then would never be through.
_DEADLINE = 10.0
# So many ports are asked at most.
_MOST = 20
_MOST_ANSWER = 1 << 20
# What only the server answers with: a GET without a key, and the list in its answer.
_SIGNS = {"ollama": ("/api/tags", "models")}
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def who_answers(server: str, listeners: Sequence[Listener]) -> frozenset[tuple[str, int]]:
    """Return (address, port) of the listeners behind which the server answers."""
    heard: list[tuple[str, int]] = []

    def ask(address: str, port: int) -> None:
        if answers_as(server, place_of(address), port):
            heard.append((address, port))

    until = time.monotonic() + _DEADLINE
    threads = [
        threading.Thread(target=ask, args=(each.address, each.port), daemon=True)
        for each in listeners[:_MOST]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return frozenset(heard)


def place_of(address: str) -> str:
    """Return where to ask a socket that is bound to an address."""
    return _WILDCARDS.get(address, address)


def answers_as(server: str, address: str, port: int) -> bool:
    """Tell whether the server answers there, in plain HTTP or within TLS."""
    if server not in _SIGNS:
        return False
    # Whose certificate it is does not matter.
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    return _is_answer(server, http.client.HTTPConnection(address, port, timeout=_TIMEOUT)) or (
        _is_answer(
            server, http.client.HTTPSConnection(address, port, timeout=_TIMEOUT, context=anybody)
        )
    )


def _is_answer(server: str, connection: http.client.HTTPConnection) -> bool:
    path, field = _SIGNS[server]
    with (
        contextlib.closing(connection),
        contextlib.suppress(OSError, ValueError, http.client.HTTPException, RecursionError),
    ):
        connection.request("GET", path, headers={"Host": SERVERS[server].host_header})
        said = json.loads(connection.getresponse().read(_MOST_ANSWER))
        return isinstance(said, dict) and field in said
    return False
