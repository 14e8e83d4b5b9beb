# SPDX-License-Identifier: GPL-3.0-or-later
"""The default rate limits, the guide's: 10 a minute per key (burst 5), 30 per address (10)."""

from __future__ import annotations

import json

# Runs on a neighbour: one key (or none) asks as fast as it can. A key of its own for each
# question where it shall not be the key that is counted.
FLOOD = """
import http.client, json, ssl, sys
name, ca, keys = json.load(sys.stdin)
seen = []
for key in keys:
    link = http.client.HTTPSConnection(name, context=ssl.create_default_context(cafile=ca))
    link.request("GET", "/api/tags", headers={"Authorization": "Bearer " + key} if key else {})
    answer = link.getresponse()
    body = answer.read().decode()
    seen.append({"status": answer.status, "retry": answer.headers["Retry-After"], "body": body})
print(json.dumps(seen))
"""


def flood(gateway, host, keys):
    stdin = json.dumps([gateway.server_name, gateway.ca_file, keys])
    done = gateway.lab.run(host, "python3", "-c", FLOOD, stdin=stdin, check=True)
    return json.loads(done.stdout)


def test_limit_per_key(gateway, keys):
    seen = flood(gateway, "app-server", [keys["app"]] * 8)
    # One at once, five more as burst; at this speed no further one comes due in between.
    assert [one["status"] for one in seen] == [200] * 6 + [429] * 2
    refused = seen[-1]
    assert refused["retry"] == "6"
    assert json.loads(refused["body"])["error"]["type"] == "rate_limit"
    # Another key from the same address still has its own allowance.
    assert flood(gateway, "app-server", [keys["reader"]])[0]["status"] == 200


def test_limit_per_address_holds_for_keys_that_change(gateway):
    guesses = [f"llmk_{number:046d}" for number in range(14)]
    statuses = [one["status"] for one in flood(gateway, "stranger", guesses)]
    assert statuses == [401] * 11 + [429] * 3
