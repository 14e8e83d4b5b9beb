# SPDX-License-Identifier: GPL-3.0-or-later
"""What an attacker and an application see of a gateway, asked with curl from the lab's hosts.

The same probes run before and after hardening. Each says what it saw in a few words, and whether
that is what a hardened host must show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.curl import Answer, generate, request
from tests.lab.hosts import Lab

FLOOD_TITLE = "Stranger floods"
FLOOD = 14  # requests; more than one address may send at once


@dataclass(frozen=True)
class Target:
    """Where the probes go, and the key that the application server was given."""

    lab: Lab
    address: str
    address6: str
    name: str
    ca_file: str  # on the hosts
    key: str
    model: str
    mode: str = "api_key"  # gateway_auth
    certificate_file: str = ""  # on the application server: its certificate with its key

    @property
    def credential(self) -> str:
        """What a client must show in this mode."""
        words = {
            "mtls": "certificate",
            "both": "key and certificate",
            "either": "key or certificate",
        }
        return words.get(self.mode, "key")

    @property
    def refusal(self) -> int:
        """Status for a client that shows nothing: HTTP can ask for a key, not for a certificate."""
        return 403 if self.mode in {"mtls", "both"} else 401

    def url(self, path: str) -> str:
        return f"https://{self.name}{path}"


@dataclass(frozen=True)
class Seen:
    """What one probe saw, and whether a hardened host should look like that."""

    title: str
    text: str
    good: bool


def _ask(target: Target, host: str, *words: str, key: str = "") -> Answer:
    return request(target.lab, host, *words, key=key, ca_file=target.ca_file)


def _ask_as_application(target: Target, *words: str, shows: str = "") -> Answer:
    """Ask from the application server, with what the mode wants or what `shows` says."""
    shows = shows or target.credential
    key = target.key if "key" in shows else ""
    pair = ("--cert", target.certificate_file) if shows.endswith("certificate") else ()
    return _ask(target, "app-server", *pair, *words, key=key)


def _open_port(target: Target, address: str, title: str) -> Seen:
    answer = _ask(target, "stranger", f"http://{address}:11434/api/tags")
    text = f"open: {answer}, lists the models" if answer.status == 200 else f"closed: {answer}"
    return Seen(title, text, answer.status == 0)


def open_port(target: Target) -> Seen:
    return _open_port(target, target.address, "Stranger reads port 11434 over IPv4")


def open_port_6(target: Target) -> Seen:
    return _open_port(target, f"[{target.address6}]", "Stranger reads port 11434 over IPv6")


def free_compute(target: Target) -> Seen:
    url = f"http://{target.address}:11434/api/generate"
    answer = _ask(target, "stranger", url, *generate(target.model, stream=False))
    text = "generates tokens" if '"done":true' in answer.body else f"nothing: {answer}"
    return Seen("Stranger uses the model for free", text, answer.status == 0)


def delete_model(target: Target) -> Seen:
    """Deletes a model that does not exist: 404 from Ollama itself shows that it would have."""
    words = ["--request", "DELETE", "--json", '{"model":"no-such-model"}']
    answer = _ask(target, "stranger", f"http://{target.address}:11434/api/delete", *words)
    reached = "not found" in answer.body
    return Seen(
        "Stranger deletes models",
        "reaches Ollama" if reached else f"nothing: {answer}",
        not reached,
    )


def flood(target: Target) -> Seen:
    open_url = f"http://{target.address}:11434/api/tags"
    probe = _ask(target, "stranger", open_url)
    url = open_url if probe.status else target.url("/api/tags")
    answers = [_ask(target, "stranger", url).status for _unused in range(FLOOD)]
    limited = answers.count(429)
    text = f"{limited} of {FLOOD} refused with 429" if limited else f"{FLOOD} of {FLOOD} answered"
    if not any(answers):
        text = "no answer"
    elif set(answers) == {403}:
        text = f"{FLOOD} of {FLOOD} refused with 403"
    # Who shows no certificate is refused before anything is counted.
    good = limited > 0 or target.mode in {"mtls", "both"}
    return Seen(FLOOD_TITLE, text, good and 200 not in answers)


def no_key(target: Target) -> Seen:
    answer = _ask(target, "stranger", target.url("/api/generate"), *generate(target.model))
    return Seen(
        f"TLS gateway, no {target.credential}", str(answer), answer.status == target.refusal
    )


def wrong_key(target: Target) -> Seen:
    words = generate(target.model)
    answer = _ask(target, "stranger", target.url("/api/generate"), *words, key="llmk_" + "0" * 46)
    return Seen("TLS gateway, wrong key", str(answer), answer.status == target.refusal)


def _half(target: Target, shows: str, good: int) -> Seen:
    answer = _ask_as_application(target, target.url("/api/version"), shows=shows)
    return Seen(f"Application server, its {shows} alone", str(answer), answer.status == good)


def key_alone(target: Target) -> Seen:
    return _half(target, "key", 200 if target.mode == "either" else 403)


def certificate_alone(target: Target) -> Seen:
    return _half(target, "certificate", 401 if target.mode == "both" else 200)


def management(target: Target) -> Seen:
    words = ["--json", '{"model":"no-such-model"}']
    answer = _ask_as_application(target, target.url("/api/pull"), *words)
    title = f"TLS gateway, right {target.credential}, pulls a model"
    return Seen(title, str(answer), answer.status == 404)


def other_name(target: Target) -> Seen:
    words = ["--connect-to", f"::{target.name}:443", "https://other.example.com/api/tags"]
    answer = _ask_as_application(target, *words)
    return Seen("TLS gateway, called by another name", str(answer), answer.status == 0)


def application(target: Target) -> Seen:
    words = ["--no-buffer", *generate(target.model)]
    answer = _ask_as_application(target, target.url("/api/generate"), *words)
    tokens = answer.body.count('"response"')
    good = answer.status == 200 and '"done":true' in answer.body and tokens > 1
    text = f"200, streams {tokens} pieces" if good else str(answer)
    return Seen(f"Application server with its {target.credential}", text, good)


# In this order: the flood comes last, since it uses up the stranger's allowance.
PROBES: tuple[Callable[[Target], Seen], ...] = (
    open_port,
    open_port_6,
    free_compute,
    delete_model,
    no_key,
    wrong_key,
    other_name,
    management,
    application,
    flood,
)
HALVES = (key_alone, certificate_alone)


def probe(target: Target) -> list[Seen]:
    """Run all probes, one after the other."""
    halves = () if target.mode == "api_key" else HALVES
    return [ask(target) for ask in (*PROBES[:-1], *halves, PROBES[-1])]
