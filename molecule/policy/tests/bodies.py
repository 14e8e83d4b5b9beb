# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies to fool a policy with, and bodies that must pass. Plain data, used twice: by the unit
tests of the validator's `bodies`, and against a hardened host with a real Ollama.

`tiny` is a model that the key may use, `secret` one that it may not. ODD says which of them Ollama
0.33 runs (read by its own Go code), or that it refuses. Whatever runs `secret` must be refused or
be read as `secret`; whatever runs `tiny` may be refused as well, strictness being cheap.
CLIENT_BODIES are what the Python packages `ollama`, `openai` and `anthropic` really sent, and
what Ollama's own program and curl send.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

JSON = "application/json"
FORM = "multipart/form-data; boundary=XX"
PIXEL = (
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    b"WjR9awAAAABJRU5ErkJggg=="
)

GENERATE, CHAT, SHOW = "/api/generate", "/api/chat", "/api/show"
V1_CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
AUDIO = "/v1/audio/transcriptions"


class Odd(NamedTuple):
    """A body, and the model that Ollama runs with it."""

    path: str
    content_type: str
    body: bytes
    runs: Literal["tiny", "secret", "refuses"]
    why: str


class ClientBody(NamedTuple):
    """A body as an official client sends it for the model `tiny`."""

    client: str
    path: str
    content_type: str
    body: bytes


def _generate(runs: Literal["tiny", "secret", "refuses"], why: str, body: bytes) -> Odd:
    return Odd(GENERATE, JSON, body, runs, why)


def _name(name: str, why: str) -> Odd:
    body = b'{"model":"%b","prompt":"hi","stream":false}' % name.encode()
    return Odd(GENERATE, JSON, body, "secret", why)


def _form(*parts: bytes, last: bytes = b"--XX--\r\n") -> bytes:
    return b"".join(b"--XX\r\n%b\r\n" % part for part in parts) + last


def _field(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="%b"\r\n\r\n%b' % (name, value)


_FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
_TINY, _SECRET = _field(b"model", b"tiny"), _field(b"model", b"secret")

ODD = (
    # Keys
    _generate("secret", "the last duplicate", b'{"model":"tiny","prompt":"hi","model":"secret"}'),
    _generate("secret", "unknown first", b'{"model":"nope","prompt":"hi","model":"secret"}'),
    _generate("tiny", "the first duplicate", b'{"model":"secret","prompt":"hi","model":"tiny"}'),
    _generate("secret", "upper case after", b'{"model":"tiny","prompt":"hi","MODEL":"secret"}'),
    _generate("tiny", "upper case before", b'{"MODEL":"secret","prompt":"hi","model":"tiny"}'),
    _generate("secret", "upper case alone", b'{"MODEL":"secret","prompt":"hi"}'),
    _generate("secret", "one capital", b'{"model":"tiny","prompt":"hi","modeL":"secret"}'),
    _generate("secret", "escaped key", b'{"mo\\u0064el":"secret","prompt":"hi"}'),
    _generate(
        "secret", "escaped duplicate", b'{"model":"tiny","prompt":"hi","mo\\u0064el":"secret"}'
    ),
    _generate("secret", "null after", b'{"model":"secret","prompt":"hi","model":null}'),
    _generate("tiny", "another field", b'{"model":"tiny","prompt":"hi","name":"secret"}'),
    _generate("tiny", "a key with a blank", b'{"model":"tiny","prompt":"hi","model ":"secret"}'),
    _generate("tiny", "a key with NUL", b'{"model":"tiny","prompt":"hi","model\\u0000":"secret"}'),
    _generate("secret", "escaped value", b'{"model":"\\u0073ecret","prompt":"hi"}'),
    Odd(
        CHAT,
        JSON,
        '{"model":"tiny","me\u017f\u017fages":[{"role":"user","content":"hi"}]}'.encode(),
        "tiny",
        "long s in a key",
    ),
    Odd(
        GENERATE,
        JSON,
        '{"model":"tiny","prompt":"hi","\u212aeep_alive":-1}'.encode(),
        "tiny",
        "Kelvin sign in a key",
    ),
    Odd(
        CHAT,
        JSON,
        b'{"model":"tiny","messages":[{"role":"user","content":"hi","CONTENT":"other"}]}',
        "tiny",
        "a second content in a message",
    ),
    Odd(
        V1_CHAT,
        JSON,
        b'{"model":"tiny","Model":"secret","messages":[{"role":"user","content":"hi"}]}',
        "secret",
        "upper case on /v1",
    ),
    Odd(
        V1_CHAT,
        JSON,
        b'{"model":"tiny","messages":[{"role":"user","content":"hi"}],"max_tokens":1,"MAX_TOKENS":9}',
        "tiny",
        "a ceiling in upper case",
    ),
    Odd(
        "/v1/completions",
        JSON,
        b'{"model":"tiny","prompt":"hi","mODEL":"secret"}',
        "secret",
        "upper case on /v1",
    ),
    Odd(
        "/v1/embeddings",
        JSON,
        b'{"model":"tiny","input":"hi","moDel":"secret"}',
        "secret",
        "upper case on /v1",
    ),
    Odd(
        "/api/embed",
        JSON,
        b'{"model":"tiny","input":"hi","moDel":"secret"}',
        "secret",
        "upper case for embeddings",
    ),
    Odd(RESPONSES, JSON, b'{"model":"tiny","MODEL":"secret","input":"hi"}', "secret", "upper case"),
    Odd(
        RESPONSES,
        JSON,
        b'{"model":"tiny","input":[{"role":"user","content":"hi","Content":"other"}]}',
        "tiny",
        "a second content in an item",
    ),
    Odd(
        MESSAGES,
        JSON,
        b'{"model":"tiny","MODEL":"secret","max_tokens":9,'
        b'"messages":[{"role":"user","content":"hi"}]}',
        "secret",
        "upper case on /v1",
    ),
    Odd(
        MESSAGES,
        JSON,
        b'{"model":"tiny","max_tokens":9,'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"a","Text":"b"}]}]}',
        "tiny",
        "a second text in a block",
    ),
    # Other names for the model
    Odd(SHOW, JSON, b'{"name":"secret"}', "secret", "the old field"),
    Odd(SHOW, JSON, b'{"model":"","name":"secret"}', "secret", "an empty model beside it"),
    Odd(SHOW, JSON, b'{"model":null,"name":"secret"}', "secret", "no model beside it"),
    Odd(SHOW, JSON, b'{"model":"tiny","name":"secret"}', "tiny", "both fields"),
    Odd(SHOW, JSON, b'{"model":"secret","name":"tiny"}', "secret", "both fields"),
    Odd(SHOW, JSON, b'{"model":"tiny","Name":"","NAME":"secret"}', "tiny", "look-alikes"),
    # The text around and in it
    _generate(
        "tiny", "trailing object", b'{"model":"tiny","prompt":"hi"}{"model":"secret","prompt":"hi"}'
    ),
    _generate("secret", "trailing words", b'{"model":"secret","prompt":"hi"} and more'),
    _generate("secret", "trailing NUL", b'{"model":"secret","prompt":"hi"}\0'),
    _generate("refuses", "byte-order mark", b'\xef\xbb\xbf{"model":"secret","prompt":"hi"}'),
    _generate("refuses", "UTF-16", '{"model":"secret","prompt":"hi"}'.encode("utf-16")),
    _generate("refuses", "NaN", b'{"model":"secret","prompt":"hi","options":{"top_p":NaN}}'),
    _generate(
        "refuses", "Infinity", b'{"model":"secret","prompt":"hi","options":{"top_p":-Infinity}}'
    ),
    _generate(
        "refuses", "beyond a double", b'{"model":"secret","prompt":"hi","options":{"seed":1e999}}'
    ),
    _generate("secret", "invalid UTF-8 in the prompt", b'{"model":"secret","prompt":"\xff"}'),
    _generate("tiny", "invalid UTF-8 in the prompt", b'{"model":"tiny","prompt":"a\xc0\x80"}'),
    _generate("tiny", "lone surrogate", b'{"model":"tiny","prompt":"\\ud800"}'),
    _generate("refuses", "single quotes", b"{'model':'secret','prompt':'hi'}"),
    _generate("refuses", "a comment", b'{"model":"secret",/* */"prompt":"hi"}'),
    _generate("refuses", "a trailing comma", b'{"model":"secret","prompt":"hi",}'),
    _generate("refuses", "a line end in a string", b'{"model":"secret","prompt":"a\nb"}'),
    _generate("refuses", "100,000 brackets", b"[" * 100_000),
    _generate(
        "refuses",
        "100,000 brackets inside",
        b'{"model":"secret","prompt":"hi","format":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ),
    _generate(
        "secret",
        "1,000 levels",
        b'{"model":"secret","prompt":"hi","x":' + b"[" * 1000 + b"]" * 1000 + b"}",
    ),
    _generate("refuses", "a list", b'[{"model":"secret","prompt":"hi"}]'),
    _generate("refuses", "a string", b'"secret"'),
    _generate("refuses", "nothing", b""),
    _generate("refuses", "blanks", b"  \n"),
    _generate("refuses", "no model", b'{"prompt":"hi"}'),
    _generate("refuses", "null", b'{"model":null,"prompt":"hi"}'),
    _generate("refuses", "a number", b'{"model":7,"prompt":"hi"}'),
    _generate("refuses", "a list of models", b'{"model":["secret"],"prompt":"hi"}'),
    # Content types
    Odd(GENERATE, "text/plain", b'{"model":"secret","prompt":"hi"}', "secret", "text/plain"),
    Odd(GENERATE, "", b'{"model":"secret","prompt":"hi"}', "secret", "no content type"),
    Odd(
        GENERATE,
        "application/json; charset=utf-16",
        b'{"model":"secret","prompt":"hi"}',
        "secret",
        "another charset",
    ),
    Odd(
        GENERATE,
        "application/x-www-form-urlencoded",
        b'{"model":"secret","prompt":"hi"}',
        "secret",
        "a form's content type",
    ),
    # Spellings of one name
    _name("SECRET", "upper case"),
    _name(" secret ", "blanks"),
    _name("secret:latest", "with its tag"),
    _name("secret:LATEST", "with its tag in upper case"),
    _name("library/secret", "with its namespace"),
    _name("registry.ollama.ai/library/secret", "with its host"),
    _name("registry.ollama.ai/library/secret:latest", "with everything"),
    _name("Registry.Ollama.AI/Library/Secret", "with everything in mixed case"),
    _name("https://registry.ollama.ai/library/secret", "with a scheme"),
    _name("\\tsecret\\n", "other blanks"),
    _name("secret:local", "the tag that says where"),
    _name("secret:latest:local", "two tags"),
    # Forms
    Odd(AUDIO, FORM, _form(_TINY, _SECRET, _FILE), "tiny", "two models"),
    Odd(AUDIO, FORM, _form(_SECRET, _TINY, _FILE), "secret", "two models"),
    Odd(AUDIO, FORM, b"preamble\r\n" + _form(_SECRET, _FILE), "secret", "a preamble"),
    Odd(AUDIO, FORM, _form(_SECRET, _FILE).replace(b"\r\n", b"\n"), "secret", "bare line feeds"),
    Odd(
        AUDIO, FORM, _form(_SECRET, _FILE, last=b"--XX-- \r\nmore"), "secret", "after the last part"
    ),
    Odd(
        AUDIO,
        FORM,
        _form(_SECRET, _FILE).replace(b"--XX\r\n", b"--XX \t\r\n"),
        "secret",
        "blanks after a boundary",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(b'content-disposition:form-data;\r\n name="model"\r\n\r\nsecret', _FILE),
        "secret",
        "a folded header",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(b"Content-Disposition: form-data; name=model\r\n\r\nsecret", _FILE),
        "secret",
        "a name without quotes",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(b"Content-Disposition: form-data; name*=utf-8''m%6fdel\r\n\r\nsecret", _FILE),
        "secret",
        "an encoded name",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(b'Content-Disposition: form-data; name*0="mo"; name*1="del"\r\n\r\nsecret', _FILE),
        "secret",
        "a name in pieces",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(
            b'Content-Disposition: form-data; name="model"\r\n'
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=73ecret",
            _FILE,
        ),
        "secret",
        "quoted-printable",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(
            b'Content-Disposition: form-data; name="model"\r\n'
            b'Content-Disposition: form-data; name="other"\r\n\r\nsecret',
            _FILE,
        ),
        "secret",
        "a header twice",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(b'Content-Disposition: form-data; name="model"; filename=""\r\n\r\nsecret', _FILE),
        "secret",
        "an empty file name",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(
            b'Content-Disposition: form-data; name="model"; filename="x"\r\n\r\ntiny',
            _SECRET,
            _FILE,
        ),
        "secret",
        "a file called model",
    ),
    Odd(
        AUDIO,
        FORM,
        _form(b'Content-Disposition: attachment; name="model"\r\n\r\ntiny', _SECRET, _FILE),
        "secret",
        "another disposition",
    ),
    Odd(
        AUDIO,
        "multipart/form-data; boundary=YY; boundary*=utf-8''XX",
        _form(_SECRET, _FILE),
        "secret",
        "an encoded boundary",
    ),
    Odd(
        AUDIO,
        'Multipart/Form-Data; charset=x; boundary="X\\X"',
        _form(_SECRET, _FILE).replace(b"XX", b"X\\X"),
        "secret",
        "more parameters",
    ),
    Odd(AUDIO, JSON, b'{"model":"secret"}', "refuses", "JSON where a form is due"),
)


def _json(client: str, path: str, *bodies: bytes) -> tuple[ClientBody, ...]:
    return tuple(ClientBody(client, path, JSON, body) for body in bodies)


CLIENT_BODIES = (
    *_json(
        "ollama",
        GENERATE,
        b'{"model":"tiny","stream":false,"prompt":"Why is the sky blue?"}',
        b'{"model":"tiny","stream":true,"options":{"num_ctx":2048,"num_predict":64,'
        b'"temperature":0.2,"stop":["\\n"]},"format":"json","keep_alive":"5m","prompt":"p",'
        b'"suffix":"s","system":"sys","template":"{{ .Prompt }}","context":[1,2,3],"raw":true,'
        b'"images":["' + PIXEL + b'"],"think":false}',
    ),
    *_json(
        "ollama",
        CHAT,
        b'{"model":"tiny","stream":false,"messages":[{"role":"user","content":"hi"}],"tools":[]}',
        b'{"model":"tiny","stream":true,"options":{"num_ctx":4096,"seed":1},"format":{"type":'
        b'"object","properties":{"Model":{"type":"string"},"n":{"type":"integer"}}},'
        b'"keep_alive":300.0,"messages":[{"role":"user","content":"hi","images":["' + PIXEL + b'"]}'
        b',{"role":"assistant","tool_calls":[{"function":{"name":"add","arguments":{"a":1,"b":2}}}]'
        b'},{"role":"tool","content":"3","tool_name":"add"}],"tools":[{"type":"function",'
        b'"function":{"name":"add","description":"Add.","parameters":{"type":"object","required":'
        b'["a","b"],"properties":{"a":{"type":"integer","description":"one"},"b":{"type":'
        b'"integer","description":"other"}}}}}]}',
    ),
    *_json(
        "ollama",
        "/api/embed",
        b'{"model":"tiny","input":["a","b"],"truncate":true,"dimensions":64}',
    ),
    *_json("ollama", "/api/embeddings", b'{"model":"tiny","prompt":"a"}'),
    *_json("ollama", SHOW, b'{"model":"tiny"}'),
    *_json("ollama", "/api/pull", b'{"model":"tiny","stream":true,"insecure":false}'),
    *_json("ollama", "/api/push", b'{"model":"tiny","stream":false,"insecure":false}'),
    *_json("ollama", "/api/delete", b'{"model":"tiny"}'),
    *_json("ollama", "/api/copy", b'{"source":"tiny","destination":"mine"}'),
    *_json(
        "ollama",
        "/api/create",
        b'{"model":"tiny","stream":false,"files":{"a.gguf":"sha256:' + b"0" * 64 + b'"},'
        b'"system":"be brief","parameters":{"temperature":1},"from":"tiny"}',
    ),
    *_json(
        "openai",
        V1_CHAT,
        b'{"model":"tiny","messages":[{"role":"system","content":"s"},'
        b'{"role":"user","content":"hi"}]}',
        b'{"model":"tiny","stream":true,"messages":[{"role":"system","content":"s"},{"role":'
        b'"user","content":"hi"}],"logit_bias":{"50256":-100},"max_completion_tokens":50,'
        b'"metadata":{"a":"b"},"n":1,"parallel_tool_calls":false,"reasoning_effort":"low","seed":3'
        b',"stop":["a"],"stream_options":{"include_usage":true},"temperature":0.3,"user":"u1"}',
        b'{"model":"tiny","messages":[{"role":"user","content":[{"type":"text","text":"what"},'
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,' + PIXEL + b'"}}]},{"role"'
        b':"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name"'
        b':"f","arguments":"{\\"Name\\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"ok"}]'
        b',"max_tokens":10,"tool_choice":{"type":"function","function":{"name":"f"}},"tools":[{'
        b'"type":"function","function":{"name":"f","description":"d","strict":true,"parameters":{'
        b'"type":"object","properties":{"Model":{"type":"string"},"MESSAGES":{"type":"array"}},'
        b'"required":["Model"],"additionalProperties":false}}}]}',
        b'{"model":"tiny","messages":[{"role":"user","content":"hi"}],"response_format":{"type":'
        b'"json_schema","json_schema":{"name":"a","strict":true,"schema":{"type":"object",'
        b'"properties":{"x":{"type":"number","minimum":0.5}}}}}}',
    ),
    *_json(
        "openai",
        "/v1/completions",
        b'{"model":"tiny","stream":true,"prompt":"Once","best_of":1,"echo":false,"logprobs":2,'
        b'"max_tokens":5,"suffix":"end"}',
    ),
    *_json(
        "openai",
        "/v1/embeddings",
        b'{"model":"tiny","input":["a","b"],"encoding_format":"base64"}',
        b'{"model":"tiny","input":"a","dimensions":8,"encoding_format":"float"}',
    ),
    *_json(
        "openai",
        RESPONSES,
        b'{"model":"tiny","input":"hi","instructions":"be brief","max_output_tokens":20,'
        b'"store":false}',
        b'{"model":"tiny","stream":true,"include":["reasoning.encrypted_content"],"input":[{"role":'
        b'"user","content":[{"type":"input_text","text":"q"},{"type":"input_image","detail":"auto",'
        b'"image_url":"data:image/png;base64,' + PIXEL + b'"}]},{"type":"function_call","call_id":'
        b'"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":'
        b'"r"}],"reasoning":{"effort":"low","summary":"auto"},"text":{"format":{"type":'
        b'"json_schema","name":"a","schema":{"type":"object"},"strict":true},"verbosity":"low"},'
        b'"tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object",'
        b'"properties":{"Type":{"type":"string"}}},"strict":true}]}',
    ),
    ClientBody(
        "openai",
        AUDIO,
        "multipart/form-data; boundary=2abe31158bb33899c7824cb3b24ae6fe",
        _form(
            _TINY,
            _field(b"language", b"en"),
            _field(b"prompt", b"names: Ada"),
            _field(b"response_format", b"json"),
            _field(b"temperature", b"0.0"),
            _field(b"timestamp_granularities[]", b"word"),
            _field(b"timestamp_granularities[]", b"segment"),
            b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
            b"Content-Type: audio/wav\r\n\r\nRIFF....WAVE",
        ).replace(b"--XX", b"--2abe31158bb33899c7824cb3b24ae6fe"),
    ),
    ClientBody(
        "openai",
        AUDIO,
        FORM,
        _form(
            _TINY,
            b'Content-Disposition: form-data; name="file"; filename="r\xc3\xa9sum\xc3\xa9'
            b' %221%22.wav"\r\nContent-Type: audio/x-wav\r\n\r\nRIFF',
        ),
    ),
    *_json(
        "anthropic",
        MESSAGES,
        b'{"max_tokens":100,"messages":[{"role":"user","content":"hi"}],"model":"tiny"}',
        b'{"max_tokens":100,"messages":[{"role":"user","content":[{"type":"text","text":"look"},{'
        b'"type":"image","source":{"type":"base64","media_type":"image/png","data":"' + PIXEL + b'"'
        b'}}]},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"t","input":{'
        b'"Name":"v"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1",'
        b'"content":[{"type":"text","text":"r"}]}]}],"model":"tiny","metadata":{"user_id":"u"},'
        b'"stop_sequences":["x"],"stream":true,"system":[{"type":"text","text":"s",'
        b'"cache_control":{"type":"ephemeral"}}],"thinking":{"type":"enabled","budget_tokens":1024}'
        b',"tool_choice":{"type":"auto"},"tools":[{"name":"t","description":"d","input_schema":{'
        b'"type":"object","properties":{"Text":{"type":"string"}}}}]}',
    ),
    # Ollama's own program sends its structs' empty fields along.
    *_json(
        "ollama run",
        SHOW,
        b'{"model":"tiny","system":"","template":"","verbose":false,"options":null,"name":""}',
    ),
    *_json(
        "ollama run",
        GENERATE,
        b'{"model":"tiny","prompt":"","suffix":"","system":"","template":"","options":null}',
        b'{"model":"tiny","prompt":"hi","suffix":"","system":"","template":"","options":{},'
        b'"keep_alive":"5m0s"}',
    ),
    *_json(
        "ollama run",
        "/api/pull",
        b'{"model":"tiny","username":"","password":"","name":""}',
    ),
    ClientBody(
        "curl",
        AUDIO,
        "multipart/form-data; boundary=------------------------d74496d66958873e",
        _form(_TINY, _FILE).replace(b"--XX", b"--------------------------d74496d66958873e"),
    ),
    ClientBody(
        "LangChain",
        CHAT,
        "application/json; charset=utf-8",
        b'{"model":"tiny","messages":[{"role":"user","content":"hi","images":null}],"options":'
        b'{"num_ctx":null,"num_predict":null},"keep_alive":null,"format":null,"tools":null}',
    ),
)
