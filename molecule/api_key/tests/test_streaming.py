# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens come as they are made, and the official clients work unchanged."""

from __future__ import annotations

import json

import pytest

# Runs on the application server: when did each piece of the answer arrive?
ARRIVALS = """
import http.client, json, ssl, sys, time
name, ca, key, path, body = json.load(sys.stdin)
trust = ssl.create_default_context(cafile=ca)
link = http.client.HTTPSConnection(name, context=trust, timeout=30)
headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
link.request("POST", path, body, headers)
answer = link.getresponse()
start, pieces = time.monotonic(), []
while piece := answer.read1(65536):
    pieces.append(time.monotonic() - start)
print(json.dumps({"status": answer.status, "pieces": pieces}))
"""

CLIENT_OPENAI = """
import os, openai
client = openai.OpenAI()
models = [model.id for model in client.models.list()]
names = {"tiny:latest", "tools:latest", "embeddings:latest"}
assert set(models) == names, models
assert client.models.retrieve("tiny").id == "tiny"
question = {"model": "tiny", "max_tokens": 16, "seed": 3}
question["messages"] = [{"role": "user", "content": "Hello"}]
answer = client.chat.completions.create(**question)
assert answer.usage.completion_tokens > 0, answer
stream = client.chat.completions.create(**question, stream=True)
assert len(list(stream)) > 2
try:
    openai.OpenAI(api_key="llmk_wrong", max_retries=0).models.list()
except openai.AuthenticationError as error:
    assert "not an API key" in str(error), error
else:
    raise AssertionError("a wrong key was let in")
print("ok")
"""

CLIENT_OLLAMA = """
import os, ollama
client = ollama.Client(headers={"Authorization": "Bearer " + os.environ["KEY"]})
names = {"tiny:latest", "tools:latest", "embeddings:latest"}
assert {model.model for model in client.list().models} == names
assert client.generate("tiny", "Hello", options={"num_predict": 16, "seed": 3}).done
message = {"role": "user", "content": "Hello"}
stream = client.chat("tiny", [message], stream=True, options={"num_predict": 16, "seed": 3})
assert len(list(stream)) > 2
try:
    client.delete("tiny")
except ollama.ResponseError as error:
    assert error.status_code == 404, error
else:
    raise AssertionError("a management route was let through")
print("ok")
"""


def run_python(lab, code, stdin, env=()):
    words = ["env", "PYTHONPATH=/opt/llm-clients", *env, "python3", "-c", code]
    return lab.run("app-server", *words, stdin=stdin, check=True).stdout


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "Hello", "options": {"num_predict": 200, "seed": 3}}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x"}], "stream": True, "seed": 3},
        ),
    ],
)
def test_tokens_arrive_in_pieces(gateway, keys, lab, path, body):
    body = json.dumps({"model": "tiny", "max_tokens": 200, **body})
    ask = [gateway.server_name, gateway.ca_file, keys["app"], path, body]
    seen = json.loads(run_python(lab, ARRIVALS, json.dumps(ask)))
    assert seen["status"] == 200
    assert len(seen["pieces"]) > 10
    # Buffered, they would come all at once, at the end.
    assert seen["pieces"][-1] > 4 * seen["pieces"][0]


@pytest.mark.parametrize(
    ("code", "base"), [(CLIENT_OPENAI, "OPENAI_BASE_URL={}/v1"), (CLIENT_OLLAMA, "OLLAMA_HOST={}")]
)
def test_official_client(gateway, keys, lab, code, base):
    # The key comes on standard input: an argument would show in the process list.
    code = f"import os, sys; os.environ['OPENAI_API_KEY'] = os.environ['KEY'] = input()\n{code}"
    env = [base.format(f"https://{gateway.server_name}"), f"SSL_CERT_FILE={gateway.ca_file}"]
    assert run_python(lab, code, keys["app"] + "\n", env).strip() == "ok"
