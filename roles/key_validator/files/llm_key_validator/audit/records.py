# SPDX-License-Identifier: GPL-3.0-or-later
"""The records' fields, as bytes to stand between sequence number and hash.

Names are those of ECS (event, http, user, client, url, tls) and of OpenTelemetry's GenAI
conventions (gen_ai); what neither has is ``llm.*``. What is not known is left out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import NamedTuple

# Longest text in a record (code points): a line must fit into one datagram of a sink. Only what
# a client sent can be longer, and only in a refusal: what is judged has its own limits.
_MAX_TEXT = 1024
# Beyond it a fast line is made anew with its texts cut (bytes)
_MAX_FIELDS = 4096

# Bytes that JSON allows inside of a text as they are, and the quotes around it
_HARMLESS = bytes(code for code in range(0x20, 0x7F) if code != ord("\\"))

Value = str | int | list[str]


class PromptDigest(NamedTuple):
    """What stands for a prompt in the log."""

    hash: str
    algorithm: str
    form: str
    length: int  # code points


class PromptDigester:
    """Digests prompts: with a pepper so that short ones cannot be guessed, or without."""

    def __init__(self, pepper: bytes | None) -> None:
        self._pepper = pepper
        self.algorithm = "sha256" if pepper is None else "hmac-sha256"

    def digest(self, text: str) -> str:
        """Return the digest of a prompt's canonical form, as hex."""
        # surrogatepass: JSON can name lone surrogates, and their prompts need a digest, too.
        content = text.encode("utf-8", "surrogatepass")
        if self._pepper is None:
            return hashlib.sha256(content).hexdigest()
        return hmac.digest(self._pepper, content, "sha256").hex()


def request_fields(
    *,
    request_id: str,
    client_ip: str,
    key_id: str,
    key_sha256: str | None,
    method: str,
    path: str,
    body_bytes: int,
    provider: str,
    operation: str,
    certificate: str | None = None,
    subject: str | None = None,
    model: str | None = None,
    prompt: PromptDigest | None = None,
) -> bytes:
    """Return the fields of a request that is about to be forwarded."""
    # In the template: four for a name with a text, two for a name with a number
    quotes = 38
    who = f'"user.id":"{key_id}"'
    if key_sha256 is not None:
        who += f',"user.hash":"{key_sha256}"'
        quotes += 4
    if certificate is not None:
        who += f',"tls.client.hash.sha256":"{certificate.upper()}"'
        quotes += 4
    if subject is not None:
        who += f',"tls.client.subject":"{subject}"'
        quotes += 4
    text = (
        f'"event.action":"request","event.outcome":"unknown","http.request.id":"{request_id}",'
        f'"client.ip":"{client_ip}",{who},'
        f'"http.request.method":"{method}","url.path":"{path}",'
        f'"http.request.body.bytes":{body_bytes},"gen_ai.provider.name":"{provider}",'
        f'"gen_ai.operation.name":"{operation}"'
    )
    if model is not None:
        text += f',"gen_ai.request.model":"{model}"'
        quotes += 4
    if prompt is not None:
        text += (
            f',"llm.prompt.hash":"{prompt.hash}","llm.prompt.hash_algorithm":"{prompt.algorithm}"'
            f',"llm.prompt.form":"{prompt.form}","llm.prompt.length":{prompt.length}'
        )
        quotes += 14
    return _plain(text, quotes) or render(
        {
            "event.action": "request",
            "event.outcome": "unknown",
            **_request_values(
                request_id=request_id,
                client_ip=client_ip,
                key_id=key_id,
                key_sha256=key_sha256,
                certificate=certificate,
                subject=subject,
                method=method,
                path=path,
            ),
            "http.request.body.bytes": body_bytes,
            "gen_ai.provider.name": provider,
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": model,
            **_prompt_values(prompt),
        }
    )


def response_fields(
    *,
    request_id: str,
    key_id: str | None,
    model: str | None,
    status: int,
    duration_ns: int,
    body_bytes: int,
) -> bytes:
    """Return the fields of a response that was delivered."""
    outcome = "success" if status < 400 else "failure"
    text = (
        f'"event.action":"response","event.outcome":"{outcome}","http.request.id":"{request_id}",'
        f'"http.response.status_code":{status},"event.duration":{duration_ns},'
        f'"http.response.body.bytes":{body_bytes}'
    )
    quotes = 18
    if key_id is not None:
        text += f',"user.id":"{key_id}"'
        quotes += 4
    if model is not None:
        text += f',"gen_ai.request.model":"{model}"'
        quotes += 4
    return _plain(text, quotes) or render(
        {
            "event.action": "response",
            "event.outcome": outcome,
            "http.request.id": request_id,
            "http.response.status_code": status,
            "event.duration": duration_ns,
            "http.response.body.bytes": body_bytes,
            "user.id": key_id,
            "gen_ai.request.model": model,
        }
    )


def refusal_fields(
    *,
    reason: str,
    status: int,
    request_id: str | None = None,
    client_ip: str | None = None,
    key_id: str | None = None,
    key_sha256: str | None = None,
    certificate: str | None = None,
    subject: str | None = None,
    method: str | None = None,
    path: str | None = None,
    body_bytes: int | None = None,
    provider: str | None = None,
    operation: str | None = None,
    model: str | None = None,
    prompt: PromptDigest | None = None,
) -> bytes:
    """Return the fields of a refusal: what is known of the request, and why."""
    values: dict[str, Value | None] = {
        "event.action": "refusal",
        "event.outcome": "failure",
        "event.reason": reason,
        "http.response.status_code": status,
        **_request_values(
            request_id=request_id,
            client_ip=client_ip,
            key_id=key_id,
            key_sha256=key_sha256,
            certificate=certificate,
            subject=subject,
            method=method,
            path=path,
        ),
        "http.request.body.bytes": body_bytes,
        "gen_ai.provider.name": provider,
        "gen_ai.operation.name": operation,
        "gen_ai.request.model": model,
        **_prompt_values(prompt),
    }
    return render(values)


def suppressed_fields(reason: str, count: int) -> bytes:
    """Return the fields of a record for refusals that were only counted."""
    return render(
        {"event.action": "suppressed", "event.reason": reason, "llm.audit.count": count},
    )


def render(values: dict[str, Value | None]) -> bytes:
    """Return fields of any content, long texts cut."""
    bounded = {name: _bounded(value) for name, value in values.items() if value is not None}
    # Without the braces
    return json.dumps(bounded, separators=(",", ":")).encode("ascii")[1:-1]


def _plain(text: str, quotes: int) -> bytes | None:
    """Return ``text`` as bytes, None when a value in it needs JSON's escapes or is too long.

    As many quotes as the names need, and no backslash: then no value ends early.
    """
    if len(text) > _MAX_FIELDS or text.count('"') != quotes or not text.isascii():
        return None
    fields = text.encode("ascii")
    return None if fields.translate(None, _HARMLESS) else fields


def _bounded(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    # A lone surrogate would be JSON that many readers refuse.
    text = value[:_MAX_TEXT].encode("utf-8", "replace").decode()
    return text if len(value) <= _MAX_TEXT else f"{text}…"


def _request_values(
    *,
    request_id: str | None,
    client_ip: str | None,
    key_id: str | None,
    key_sha256: str | None,
    certificate: str | None,
    subject: str | None,
    method: str | None,
    path: str | None,
) -> dict[str, Value | None]:
    return {
        "http.request.id": request_id,
        "client.ip": client_ip,
        "user.id": key_id,
        "user.hash": key_sha256,
        # In upper case, as ECS wants it
        "tls.client.hash.sha256": certificate and certificate.upper(),
        "tls.client.subject": subject,
        "http.request.method": method,
        "url.path": path,
    }


def _prompt_values(prompt: PromptDigest | None) -> dict[str, Value | None]:
    if prompt is None:
        return {}
    return {
        "llm.prompt.hash": prompt.hash,
        "llm.prompt.hash_algorithm": prompt.algorithm,
        "llm.prompt.form": prompt.form,
        "llm.prompt.length": prompt.length,
    }
