# SPDX-License-Identifier: GPL-3.0-or-later
"""Models, ceilings and quotas of a key, as its user meets them."""

from __future__ import annotations

import base64
import gzip
import json
import time

import pytest

from tests.lab.batch import Question, post
from tests.lab.steps import wait_until

VALIDATOR = "llm-key-validator.service"
QUESTION = {"prompt": "Hello", "stream": False, "options": {"num_predict": 2, "seed": 3}}
ASK_TINY = post("/api/generate", model="tiny", **QUESTION)
ASK_SECRET = post("/api/generate", model="secret", **QUESTION)
LIST = Question("/api/tags")


def assert_refused(answer, status, kind, words=""):
    assert answer.status == status, answer
    error = answer.json()["error"]
    assert error["type"] == kind
    assert error["request_id"] == answer.headers["x-request-id"]
    assert words in error["message"], answer


def names(answer):
    """The models in one of the three lists."""
    assert answer.status == 200, answer
    document = answer.json()
    models = document["models"] if "models" in document else document["data"]
    return {model.get("name") or model["id"] for model in models}


# --- models ---


@pytest.mark.parametrize(
    ("key", "allowed", "forbidden"),
    [("tiny_only", "tiny", "secret"), ("by_pattern", "secret", "tiny")],
)
@pytest.mark.parametrize(
    "body",
    [
        {"path": "/api/generate", **QUESTION},
        {"path": "/api/chat", "messages": [{"role": "user", "content": "hi"}], "stream": False},
        {"path": "/v1/chat/completions", "messages": [{"role": "user", "content": "hi"}]},
        {"path": "/v1/completions", "prompt": "hi"},
        {"path": "/v1/responses", "input": "hi"},
        {
            "path": "/v1/messages",
            "max_tokens": 4,
            "messages": [{"role": "user", "content": "hi"}],
        },
    ],
    ids=lambda body: body["path"],
)
def test_a_key_has_its_models(ask, key, allowed, forbidden, body):
    good, bad = ask(key, post(model=allowed, **body), post(model=forbidden, **body))
    assert good.status == 200, good
    assert_refused(bad, 403, "permission_error", "may not use this model")
    assert forbidden not in bad.body


def test_a_key_without_models_has_all(ask):
    statuses = [answer.status for answer in ask("app", ASK_TINY, ASK_SECRET)]
    assert statuses == [200, 200]


@pytest.mark.parametrize("model", ["tiny2", "other/tiny", "ecret", "tiny:other", "other/secret"])
def test_names_that_only_look_alike(ask, model):
    """Whether there is such a model stays a secret as well."""
    question = post("/api/generate", model=model, **QUESTION)
    for key in ("tiny_only", "by_pattern"):
        (answer,) = ask(key, question)
        assert_refused(answer, 403, "permission_error", "may not use this model")


def test_a_pattern_allows_models_that_are_not_there(ask):
    """It is the LLM server that says so."""
    (answer,) = ask("by_pattern", post("/api/generate", model="someone/theirs:1b", **QUESTION))
    assert answer.status == 404, answer
    assert "request_id" not in answer.body


@pytest.mark.parametrize("path", ["/api/tags", "/v1/models", "/api/ps"])
def test_lists_hold_only_the_keys_models(ask, path):
    # So that /api/ps has something to show
    assert [one.status for one in ask("app", ASK_TINY, ASK_SECRET)] == [200] * 2
    (every,), (own,), (other,) = (
        ask(key, Question(path)) for key in ("app", "tiny_only", "by_pattern")
    )
    assert names(every) <= {"tiny:latest", "secret:latest"}
    assert names(own) == names(every) & {"tiny:latest"}
    assert names(other) == names(every) & {"secret:latest"}
    if path != "/api/ps":
        assert len(names(every)) == 2
    assert own.headers["content-type"].startswith("application/json")


def test_the_head_of_a_list(gateway, keys):
    answer = gateway.ask("/api/tags", "--head", key=keys["tiny_only"])
    assert (answer.status, answer.body) == (200, "")


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        ("tiny_only", "tiny", 200),
        ("tiny_only", "tiny:latest", 200),
        ("tiny_only", "secret", 403),
        ("tiny_only", "no-such-model", 403),
        ("by_pattern", "secret", 200),
        ("app", "secret", 200),
    ],
)
def test_one_model_by_name(gateway, keys, key, model, status):
    assert gateway.ask(f"/v1/models/{model}", key=keys[key]).status == status


# --- what a body may ask for ---


def generate(**more):
    options = {"num_predict": 2, "seed": 3, **more.pop("options", {})}
    return post(
        "/api/generate",
        **{"model": "tiny", "prompt": "Hello", "stream": False, **more},
        options=options,
    )


def talk(path, count=1, **more):
    return post(path, model="tiny", messages=[{"role": "user", "content": "hi"}] * count, **more)


CEILINGS = {
    "max_output_tokens 8": [
        (generate(options={"num_predict": 8}), generate(options={"num_predict": 9})),
        (generate(), generate(options={"num_predict": -1})),
        (talk("/api/chat", stream=False), talk("/api/chat", options={"num_predict": 9})),
        (
            talk("/v1/chat/completions", max_tokens=8),
            talk("/v1/chat/completions", max_tokens=9),
        ),
        (
            talk("/v1/chat/completions", max_completion_tokens=8),
            talk("/v1/chat/completions", max_tokens=8, max_completion_tokens=9),
        ),
        (
            post("/v1/completions", model="tiny", prompt="hi", max_tokens=8),
            post("/v1/completions", model="tiny", prompt="hi", max_tokens=9),
        ),
        (
            post("/v1/responses", model="tiny", input="hi", max_output_tokens=8),
            post("/v1/responses", model="tiny", input="hi", max_output_tokens=9),
        ),
        (talk("/v1/messages", max_tokens=8), talk("/v1/messages", max_tokens=9)),
    ],
    "max_context_tokens 1024": [
        (generate(options={"num_ctx": 1024}), generate(options={"num_ctx": 1025})),
    ],
    "max_keep_alive_seconds 60": [
        (generate(keep_alive="1m"), generate(keep_alive="1m1s")),
        (generate(keep_alive=60), generate(keep_alive=-1)),
        (
            post("/api/embed", model="tiny", input="hi", keep_alive=60),
            post("/api/embed", model="tiny", input="hi", keep_alive=61),
        ),
    ],
    "max_choices 1": [
        (talk("/v1/chat/completions", n=1), talk("/v1/chat/completions", n=2)),
    ],
    "max_messages 3": [
        (talk("/api/chat", 3, stream=False), talk("/api/chat", 4, stream=False)),
        (talk("/v1/messages", 3, max_tokens=4), talk("/v1/messages", 4, max_tokens=4)),
    ],
    "max_images 1": [
        (generate(images=["AAAA"]), generate(images=["AAAA"] * 2)),
    ],
    "max_prompt_characters 200": [
        (generate(prompt="a" * 200), generate(prompt="a" * 201)),
        # Characters, not bytes
        (generate(prompt="\N{EURO SIGN}" * 200), generate(prompt="\N{EURO SIGN}" * 201)),
    ],
}
# Each pair at the limit and above it
PAIRS = [(words, *pair) for words, pairs in CEILINGS.items() for pair in pairs]


@pytest.mark.parametrize(("words", "within", "above"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_ceilings(ask, words, within, above):
    allowed, refused = ask("small", within, above)
    assert_refused(refused, 400, "invalid_request", words)
    # Ollama may refuse an image or an embedding of so small a model; it was asked.
    assert "request_id" not in allowed.body, allowed
    (unlimited,) = ask("app", above)
    assert "request_id" not in unlimited.body, unlimited


@pytest.mark.parametrize(("size", "status"), [(20_000, 400), (20_001, 413)])
def test_body_size_of_the_tier(ask, size, status):
    """A body of 20,000 bytes is read, and its prompt is too long then."""
    empty = len(generate(prompt="").body)
    (answer,) = ask("small", generate(prompt="a" * (size - empty)))
    kind, words = {
        400: ("invalid_request", "max_prompt_characters 200"),
        413: ("request_too_large", "max_body_bytes 20000"),
    }[status]
    assert_refused(answer, status, kind, words)


def test_body_size_of_the_gateway(gateway, keys):
    gateway.lab.run("app-server", "truncate", "--size=2100000", "/root/large", check=True)
    words = ["--data-binary", "@/root/large", "--header", "Expect:"]
    answer = gateway.ask("/api/generate", *words, key=keys["app"])
    assert_refused(answer, 413, "request_too_large")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"],
)
def test_wrong_content_type(ask, content_type):
    question = Question(ASK_TINY.path, ASK_TINY.body, content_type)
    assert_refused(ask("app", question)[0], 400, "invalid_request")


ASK_RESPONSE = post("/v1/responses", model="tiny", input="hi", max_output_tokens=4)


def labelled(encoding, body):
    return Question(ASK_RESPONSE.path, body, headers={"Content-Encoding": encoding})


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "GZIP", "identity, gzip"])
def test_a_body_that_is_said_to_be_compressed(ask, encoding):
    """Whatever it is: Ollama unpacks some, and would read what nobody judged."""
    for body in (ASK_RESPONSE.body, gzip.compress(ASK_RESPONSE.body)):
        (answer,) = ask("app", labelled(encoding, body))
        assert_refused(answer, 400, "invalid_request", "Content-Encoding")


def test_a_body_that_is_said_to_be_as_it_is(ask):
    packed = gzip.compress(ASK_RESPONSE.body)
    plain, compressed = ask(
        "app", labelled("identity", ASK_RESPONSE.body), labelled("identity", packed)
    )
    assert plain.status == 200, plain
    assert_refused(compressed, 400, "invalid_request")


def test_a_body_where_none_is_due(ask):
    question = Question("/api/tags", b'{"model":"secret"}', method="GET")
    assert_refused(ask("tiny_only", question)[0], 400, "invalid_request")


def test_a_body_in_chunks(gateway, keys):
    words = ["--header", "Transfer-Encoding: chunked", "--json", ASK_TINY.body.decode()]
    assert gateway.ask("/api/generate", *words, key=keys["tiny_only"]).status == 200


def test_a_key_bound_to_a_certificate(ask):
    """nginx has verified none, and a header of the client's own proves nothing."""
    lines = base64.b64encode(b"a certificate").decode()
    pem = f"-----BEGIN CERTIFICATE-----%0A{lines}%0A-----END CERTIFICATE-----%0A"
    forged = Question("/api/tags", headers={"X-Client-Certificate": pem.replace("+", "%2B")})
    for answer in ask("bound", LIST, forged):
        assert_refused(answer, 403, "permission_error")


@pytest.mark.parametrize(
    "header",
    [
        f"X-Gateway-Request: {'0' * 32} 127.0.0.1 read GET /api/version",
        "x-gateway-request: x",
        "X_Gateway_Request: x",
        "X-Key-Id: app",
        "X-Accel-Redirect: @backend",
    ],
)
def test_headers_that_only_nginx_may_set(ask, header):
    name, _unused, value = header.partition(": ")
    question = Question(ASK_SECRET.path, ASK_SECRET.body, headers={name: value})
    assert_refused(ask("tiny_only", question)[0], 403, "permission_error")


# --- quotas ---


@pytest.fixture
def fresh_counters(gateway):
    """Counters are in the service's memory: a new one starts at none."""
    gateway.host.check_output("systemctl restart %s", VALIDATOR)


def quota(answer):
    words = ("limit", "remaining", "reset")
    return tuple(int(answer.headers[f"ratelimit-{word}"]) for word in words)


@pytest.mark.usefixtures("fresh_counters")
def test_requests_per_minute(ask):
    """Thirty a minute, and two more at once: the next one fits after two seconds."""
    *good, bad = ask("minute", ASK_TINY, LIST, LIST, LIST)
    assert [answer.status for answer in good] == [200] * 3
    assert [quota(answer)[:2] for answer in good] == [(3, 2), (3, 1), (3, 0)]
    assert 0 < quota(good[0])[2] <= 2
    assert_refused(bad, 429, "rate_limit", "fewer a minute")
    assert quota(bad)[:2] == (3, 0)
    wait = int(bad.headers["retry-after"])
    assert 1 <= wait <= 2
    time.sleep(wait)
    assert ask("minute", LIST)[0].status == 200


@pytest.mark.usefixtures("fresh_counters")
def test_requests_per_day(ask):
    """What policy refuses counts as well."""
    nobodys = post("/api/generate", model="tiny")
    *counted, bad = ask("daily", ASK_TINY, Question("/api/generate", nobodys.body[:-1]), LIST, LIST)
    assert [answer.status for answer in counted] == [200, 400, 200]
    assert [quota(answer)[:2] for answer in counted] == [(3, 2), (3, 1), (3, 0)]
    assert_refused(bad, 429, "rate_limit", "no more today")
    to_midnight = 86400 - time.time() % 86400
    assert abs(int(bad.headers["retry-after"]) - to_midnight) < 30
    assert abs(quota(bad)[2] - to_midnight) < 30


def test_no_quota_no_headers(ask):
    (answer,) = ask("app", ASK_TINY)
    assert answer.status == 200
    assert not [name for name in answer.headers if name.startswith("ratelimit")]


@pytest.mark.parametrize("ending", ["read", "cut off"])
@pytest.mark.usefixtures("fresh_counters")
def test_requests_at_a_time(ask, door, keys, ending):
    """A stream holds its place from its first piece to its end, whoever ends it."""

    def one_more():
        return ask("busy", LIST)[0]

    with door.stream(keys["busy"]) as stream:
        answer = one_more()
        assert_refused(answer, 429, "rate_limit", "at a time")
        assert answer.headers["retry-after"] == "1"
        if ending == "read":
            lines = stream.rest()
            assert lines[-1]["done"] is True
            # It came through the policy hop in pieces: the refusal fell between two of them.
            assert len(lines) > 100
    assert wait_until(lambda: one_more().status == 200, seconds=5)


# --- local users ---

AS_NOBODY = "runuser -u nobody -- "
CURL = "curl --silent --output /dev/null --write-out '%{http_code}' --max-time 5 "
HOP = f"-H 'X-Gateway-Request: {'0' * 32} 192.0.2.1 read GET /api/tags' -H 'X-Key-Id: app' "


@pytest.mark.parametrize("user", ["", AS_NOBODY, "runuser -u www-data -- "])
def test_the_port_authorizes_nobody(gateway, user):
    """Not even root or the web server: the policy hop is the unix socket's alone."""
    answer = gateway.host.run(f"{user}{CURL}{HOP} http://127.0.0.1:8081/authorize")
    assert answer.stdout == "403"
    redirect = gateway.host.run(f"{user}curl -si {HOP} http://127.0.0.1:8081/authorize")
    assert "x-accel-redirect" not in redirect.stdout.lower()


def test_the_unix_sockets_are_closed_to_local_users(gateway):
    words = f"{CURL}{HOP} --unix-socket /run/llm-key-validator.sock http://localhost/authorize"
    assert gateway.host.run(f"{AS_NOBODY}{words}").stdout == "000"
    # The positive control: root gets an answer, and without a key no more than that.
    assert gateway.host.run(words).stdout == "401"
    send = (
        "import socket; "
        "link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "link.sendto(b'{}', '/run/llm-key-validator-log.sock')"
    )
    as_nobody = gateway.host.run(f"{AS_NOBODY}python3 -c %s", send)
    assert "PermissionError" in as_nobody.stderr
    assert gateway.host.run("python3 -c %s", send).rc == 0


def test_a_local_user_reads_nothing(gateway):
    paths = (
        "/var/log/llm-gateway/audit.jsonl",
        "/var/lib/llm-key-validator/audit/seal.json",
        "/etc/llm-key-validator/config.json",
        "/etc/llm-key-validator/keys.json",
        "/etc/llm-key-validator/credentials/prompt-pepper",
    )
    for path in paths:
        assert gateway.host.file(path).exists, path
        assert "Permission denied" in gateway.host.run(f"{AS_NOBODY}cat {path}").stderr, path


def test_metrics_count_what_was_judged(ask, gateway):
    def counts():
        text = gateway.host.check_output("curl --silent --fail http://127.0.0.1:8081/metrics")
        lines = [line for line in text.splitlines() if "_authorizations_total{" in line]
        return {line.split('"')[1]: int(line.split()[-1]) for line in lines}

    before = counts()
    ask("tiny_only", LIST, ASK_SECRET, Question("/api/chat", b"{"))
    after = counts()
    changed = {word: after[word] - before[word] for word in after if after[word] != before[word]}
    assert changed == {"ok": 1, "model": 1, "body": 1}


def test_the_answer_of_the_llm_server_is_unchanged(ask):
    (answer,) = ask("tiny_only", ASK_TINY)
    assert json.loads(answer.body)["done"] is True
    assert "x-auth-reason" not in answer.headers
    assert "x-accel-redirect" not in answer.headers
