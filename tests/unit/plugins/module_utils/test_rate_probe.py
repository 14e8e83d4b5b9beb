# SPDX-License-Identifier: GPL-3.0-or-later
"""How a limit is used up, against a limiter with a clock of its own."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import rate_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import Answer
from ansible_collections.llmsec.hardening.plugins.module_utils.rate_checks import Limit

from tests.unit.plugins.guarded import by_id


class One:
    """One address to ask from."""

    many = False

    def take(self):
        return "127.5.5.5"


class Bucket:
    """A limiter as nginx has it, with a clock of its own, behind a server that hangs up early."""

    timeout = 1.0

    def __init__(self, limit, answers_a_connection):
        self.now, self.level, self.limit = 0.0, 0.0, limit
        self.per_connection = answers_a_connection
        self.asked = 0

    def sleep(self, seconds):
        self.now += seconds
        self.level = max(0.0, self.level - seconds / self.limit.period)

    def dial(self, source=None, name=None):
        bucket = self

        class Wire:
            open = True
            left = bucket.per_connection

            def __enter__(self):
                return self

            def __exit__(self, *_unused):
                """Nothing to close."""

            def send(self, raw):
                """Swallow it."""

            def answer(self, method, within):
                if self.left == 0:
                    self.open = False
                    return Answer(why="closed")
                self.left -= 1
                return bucket.answer()

        return Wire()

    def answer(self):
        self.asked += 1
        if self.level > self.limit.burst:
            return Answer(429, {"retry-after": "1"})
        self.level += 1
        return Answer(401)


@pytest.mark.parametrize("answers_a_connection", [1, 3, 1000])
def test_a_server_that_hangs_up_early_is_asked_on(answers_a_connection):
    limit = Limit("30r/m", 10)
    bucket = Bucket(limit, answers_a_connection)
    flood = rate_probe.Flood(
        bucket, "x", "/", "/", 200, 60.0, clock=lambda: bucket.now, sleep=bucket.sleep
    )
    wanted = rate_probe.Wanted(per_address=limit, per_key=None)
    findings = by_id([*rate_probe.rate_findings(flood, wanted, One())])
    assert findings["rate_limit.per_address"]["result"] == "pass"
    assert findings["rate_limit.recovery"]["result"] == "pass"
    assert findings["rate_limit.recovery"]["actual"] == "401 after 2.2 s"
    assert bucket.asked <= flood.sent <= 200
