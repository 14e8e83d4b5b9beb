# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answers of a server mean, one function for each check.

Pure: answers and wishes to a verdict. Held against Mozilla's guidelines 6.0 and what the roles
gateway and pki promise. One that asks for an answer that is not there raises NotMeasuredError.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.certificates import (
    CertificateError,
    covers,
    subject_alt_names,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    ALPN,
    HEARTBEAT,
    SESSION_TICKET,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    POST_QUANTUM,
    PROFILE_12,
    PROFILE_GROUPS,
    group_name,
    suite_name,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.server_reply import Reply
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.survey import (
    Answers,
    NotMeasuredError,
    Stranger,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.visit import Visit
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.x509 import (
    Certificate,
    CertificateReadError,
    read_certificate,
)

__all__ = (
    "CLIENT_CERTIFICATES",
    "LEAST_HSTS",
    "MOST_DAYS",
    "PROFILES",
    "Judge",
    "Verdict",
    "Wishes",
    "asked",
    "chain",
    "compression",
    "each_certificate",
    "early_data",
    "ends",
    "fallback",
    "handshake",
    "has_extension",
    "heartbeat",
    "hsts",
    "http2",
    "http_port",
    "key_name",
    "lasts_too_long",
    "modern_key",
    "none_taken",
    "only_tls12",
    "only_tls13",
    "order",
    "plain_http",
    "post_quantum",
    "profile_groups",
    "refused_version",
    "required",
    "resumption",
    "self_signed",
    "stranger",
    "suites12",
    "suites13",
    "tickets",
    "tls12",
    "tls13",
    "weak_key",
    "weak_signature",
    "wrong_name",
)

PROFILES = ("intermediate", "modern")
CLIENT_CERTIFICATES = ("none", "required", "optional")
# How long a server certificate may be valid (Mozilla); the role pki issues for an hour more, since
# it dates them back by one.
MOST_DAYS = {"intermediate": 366, "modern": 90}
_DAYS_OF_GRACE = 1 / 24 + 1 / 1440
LEAST_HSTS = 63072000  # seconds: two years


@dataclass(frozen=True)
class Wishes:
    """What the server should be like. `now` is aware, `certificate_days` 0 means the profile's."""

    server_name: str
    profile: str
    client_certificate: str
    now: datetime.datetime
    certificate_days: int = 0
    least_days: int = 14
    post_quantum: bool = False
    refuses_names: bool = True
    hsts: bool = True

    @property
    def most_days(self) -> int:
        """For how many days a certificate may be valid."""
        return self.certificate_days or MOST_DAYS[self.profile]


@dataclass(frozen=True)
class Verdict:
    """What a check came to. `severity` where it is not that of the check."""

    result: str
    actual: str
    evidence: Sequence[str] = ()
    severity: str = ""


Judge = Callable[[Answers, Wishes], Verdict]


def _holds(holds: object, yes: str, no: str, evidence: Sequence[str] = ()) -> Verdict:
    return Verdict("pass", yes, evidence) if holds else Verdict("fail", no, evidence)


def _skip(why: str) -> Verdict:
    return Verdict("skip", why)


# --- versions


def handshake(answers: Answers, _wishes: Wishes) -> Verdict:
    reply: Reply = answers["handshake"]
    spoken = [name for name in ("tls12", "tls13") if answers[f"version.{name}"]]
    return _holds(spoken, "it does", f"it refuses with {reply.said or 'no word'}")


def refused_version(name: str) -> Judge:
    def judge(answers: Answers, _wishes: Wishes) -> Verdict:
        return _holds(not answers[f"version.{name}"], "refused", "accepted")

    return judge


def tls12(answers: Answers, wishes: Wishes) -> Verdict:
    offered = answers["version.tls12"]
    if wishes.profile == "modern":
        verdict = _holds(not offered, "refused", "accepted")
        return Verdict(verdict.result, verdict.actual, severity="medium")
    return _holds(offered, "accepted", "refused")


def tls13(answers: Answers, _wishes: Wishes) -> Verdict:
    return _holds(answers["version.tls13"], "accepted", "refused")


def only_tls12(judge: Judge) -> Judge:
    """Return the judge for a server that speaks TLS 1.2; for another there is nothing to judge."""

    def judge_or_skip(answers: Answers, wishes: Wishes) -> Verdict:
        if not answers["version.tls12"]:
            return _skip("TLS 1.2 is off")
        return judge(answers, wishes)

    return judge_or_skip


def only_tls13(judge: Judge) -> Judge:
    def judge_or_skip(answers: Answers, wishes: Wishes) -> Verdict:
        if not answers["version.tls13"]:
            return _skip("TLS 1.3 is off")
        return judge(answers, wishes)

    return judge_or_skip


# --- suites and groups


def none_taken(*names: str, name_of: Callable[[int], str]) -> Judge:
    """Return the judge that wants none of these to be taken."""

    def judge(answers: Answers, _wishes: Wishes) -> Verdict:
        taken = [name_of(number) for name in names for number in answers[name]]
        named = ", ".join(dict.fromkeys(taken))
        return _holds(not taken, "none is accepted", f"{named} accepted", taken)

    return judge


def suites12(answers: Answers, _wishes: Wishes) -> Verdict:
    replies = {number: answers[f"suite12.{number:04X}"] for number in PROFILE_12}
    taken = [suite_name(number) for number, reply in replies.items() if reply.accepted]
    return _holds(taken, ", ".join(taken), "none of them is accepted", taken)


def suites13(answers: Answers, _wishes: Wishes) -> Verdict:
    taken = [suite_name(number) for number in answers["suites.tls13_profile"]]
    return _holds(taken, ", ".join(taken), "none of them is accepted", taken)


def order(answers: Answers, _wishes: Wishes) -> Verdict:
    picked = answers["order"]
    if len(picked) < 2:
        return _skip("one of the suites is off, so there is no order")
    return _holds(picked[0] != picked[1], "the client's order counts", "the server's order counts")


def profile_groups(answers: Answers, _wishes: Wishes) -> Verdict:
    taken = answers["groups.profile"]
    missing = [group_name(number) for number in PROFILE_GROUPS if number not in taken]
    named = ", ".join(group_name(number) for number in taken)
    return _holds(not missing, named, f"{', '.join(missing)} refused, {named or 'none'} accepted")


def post_quantum(answers: Answers, wishes: Wishes) -> Verdict:
    if POST_QUANTUM in answers["groups.post_quantum"]:
        return Verdict("pass", "accepted")
    if wishes.post_quantum:
        return Verdict("fail", "refused")
    return _skip("refused: it needs OpenSSL 3.5, which Debian has since 13")


# --- parts of the handshake


def compression(answers: Answers, _wishes: Wishes) -> Verdict:
    reply = answers["compression"]
    return _holds(not (reply.accepted and reply.compression), "off", "DEFLATE is accepted")


def has_extension(number: int) -> Judge:
    def judge(answers: Answers, _wishes: Wishes) -> Verdict:
        return _holds(number in answers["features"].extensions, "it does", "it does not")

    return judge


def heartbeat(answers: Answers, _wishes: Wishes) -> Verdict:
    return _holds(HEARTBEAT not in answers["features"].extensions, "off", "answered")


def fallback(answers: Answers, _wishes: Wishes) -> Verdict:
    if not answers["version.tls13"]:
        return _skip("TLS 1.2 is its newest version, so there is none to fall back from")
    reply = answers["fallback"]
    return _holds(not reply.accepted, f"refused with {reply.said}", "accepted")


def http2(answers: Answers, _wishes: Wishes) -> Verdict:
    picked = [answers["alpn"].alpn]
    if answers["version.tls12"]:
        picked.append(answers["features"].extensions.get(ALPN, b"")[3:].decode("latin-1"))
    return _holds("h2" not in picked, "h2 is not picked", "the server picks h2")


# --- sessions

# OpenSSL's tickets without a state at the server are longer than the name of a session, which it
# hands out in TLS 1.3 otherwise.
_BYTES_OF_NAME = 32


def _visits(answers: Answers) -> Iterator[tuple[str, Visit, bool]]:
    """Yield (version, what was seen, whether it resumed) of the versions that are spoken."""
    for name, title in (("tls12", "TLS 1.2"), ("tls13", "TLS 1.3")):
        if answers[f"version.{name}"]:
            visit, resumed = answers[f"visit.{name}"]
            yield title, visit, resumed


def tickets(answers: Answers, _wishes: Wishes) -> Verdict:
    issued = []
    if answers["version.tls12"] and SESSION_TICKET in answers["features"].extensions:
        issued.append("TLS 1.2")
    if answers["version.tls13"] and answers["visit.tls13"][0].ticket > _BYTES_OF_NAME:
        issued.append("TLS 1.3")
    return _holds(not issued, "none are issued", f"issued in {' and '.join(issued)}")


def resumption(answers: Answers, wishes: Wishes) -> Verdict:
    if wishes.client_certificate == "none":
        return _skip("no client certificates, so a session carries no verdict on one")
    seen = [
        f"a session is resumed in {title}" for title, _visit, resumed in _visits(answers) if resumed
    ]
    if answers["version.tls12"]:
        features = answers["features"]
        seen += ["a session id is issued in TLS 1.2"] if features.session_id else []
        seen += ["a ticket is issued in TLS 1.2"] if SESSION_TICKET in features.extensions else []
    return _holds(not seen, "no session is offered or resumed", "; ".join(seen), seen)


def early_data(answers: Answers, _wishes: Wishes) -> Verdict:
    visit: Visit = answers["visit.tls13"][0]
    if visit.asks_certificate is None:
        raise NotMeasuredError("this Python does not show what a ticket says")
    return _holds(not visit.early_data, "off", f"tickets allow {visit.early_data} bytes of it")


# --- certificates


def _chains(answers: Answers) -> list[tuple[bytes, ...]]:
    """Return the chains that were shown, one for each certificate (there may be ECDSA and RSA)."""
    replies = [answers[f"suite12.{number:04X}"] for number in PROFILE_12]
    shown = [reply.certificates for reply in replies if reply.certificates]
    if answers["version.tls13"]:
        shown.append(answers["visit.tls13"][0].chain)
    by_leaf: dict[bytes, tuple[bytes, ...]] = {}
    for chain in shown:
        if chain and len(chain) > len(by_leaf.get(chain[0], ())):
            by_leaf[chain[0]] = chain
    if not by_leaf:
        raise NotMeasuredError("the server showed no certificate")
    return [*by_leaf.values()]


def _read(der: bytes) -> Certificate:
    try:
        return read_certificate(der)
    except CertificateReadError as exc:
        raise NotMeasuredError(exc) from exc


def each_certificate(
    problem: Callable[[Certificate, Wishes], str], good: Callable[[Certificate], str],
    *, whole: bool = False,
) -> Judge:  # fmt: skip
    """Return the judge that wants no certificate to have this problem; whole: none of its chain.

    Roots are left out: nobody relies on the signature or the dates that they give themselves.
    """

    def judge(answers: Answers, wishes: Wishes) -> Verdict:
        problems, fine = [], []
        for chain in _chains(answers):
            for place, der in enumerate(chain if whole else chain[:1]):
                one = _read(der)
                if place and one.self_issued:
                    continue
                found = problem(one, wishes)
                where = f"certificate {place + 1} of the chain: " if place else ""
                problems += [where + found] if found else []
                fine.append(good(one))
        return _holds(not problems, "; ".join(dict.fromkeys(fine)), "; ".join(problems), problems)

    return judge  # fmt: skip


def wrong_name(one: Certificate, wishes: Wishes) -> str:
    try:
        entries = subject_alt_names([wishes.server_name])
    except CertificateError as exc:
        raise NotMeasuredError(exc) from exc
    named = all(covers(entry, one.names) for entry in entries)
    return "" if named else f"it names {', '.join(one.names) or 'nobody'}"


def ends(one: Certificate, wishes: Wishes) -> str:
    if wishes.now < one.start:
        return f"it is not valid before {one.start:%Y-%m-%d %H:%M} UTC"
    left = (one.end - wishes.now) / datetime.timedelta(days=1)
    if left <= 0:
        return "it has expired"
    return f"{int(left)} days left" if left < wishes.least_days else ""


def lasts_too_long(one: Certificate, wishes: Wishes) -> str:
    return f"{one.days:.0f} days" if one.days > wishes.most_days + _DAYS_OF_GRACE else ""


_LEAST_BITS = {"RSA": 2048, "EC": 256}
_FINE_KEYS = ("Ed25519", "Ed448", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


def weak_key(one: Certificate, _wishes: Wishes) -> str:
    fine = one.bits >= _LEAST_BITS[one.key] if one.key in _LEAST_BITS else one.key in _FINE_KEYS
    return "" if fine else key_name(one)


def key_name(one: Certificate) -> str:
    return f"{one.key} of {one.bits} bits" if one.bits else one.key


def modern_key(answers: Answers, wishes: Wishes) -> Verdict:
    if wishes.profile != "modern":
        return _skip("the profile intermediate takes RSA as well")
    names = [key_name(_read(chain[0])) for chain in _chains(answers)]
    return _holds(
        not any(name.startswith("RSA") for name in names), ", ".join(names), ", ".join(names)
    )


def weak_signature(one: Certificate, _wishes: Wishes) -> str:
    if one.signature[0].isdigit() or re.search(r" with [0-9.]+\Z", one.signature):
        raise NotMeasuredError(f"the signature algorithm {one.signature} is not known")
    return one.signature if re.search(r"MD[245]|SHA-1\b", one.signature) else ""


def self_signed(one: Certificate, _wishes: Wishes) -> str:
    return "it is its own issuer" if one.self_issued else ""


def chain(answers: Answers, _wishes: Wishes) -> Verdict:
    if "verified" not in answers:
        return _skip("no ca_file to verify it with")
    why = answers["verified"]
    return _holds(not why, "it does", why)


# --- whom it answers


def stranger(name: str) -> Judge:
    def judge(answers: Answers, wishes: Wishes) -> Verdict:
        stranger: Stranger = answers[name]
        visit = stranger.visit
        if visit is None or visit.refusal:
            return Verdict("pass", f"the handshake is refused with {stranger.reply.said or visit}")
        if visit.status is not None:
            return Verdict("fail", f"a request is answered with {visit.status}")
        silent = "the handshake is completed, a request is not answered"
        return _holds(not wishes.refuses_names, silent, silent)

    return judge


def plain_http(answers: Answers, _wishes: Wishes) -> Verdict:
    status = answers["plain_http"]
    if status is None:
        return Verdict("pass", "the connection is closed")
    if status == 429 or status >= 500:
        raise NotMeasuredError(f"the server answers with {status}")
    return _holds(status >= 400, f"refused with {status}", f"answered with {status}")


def http_port(answers: Answers, _wishes: Wishes) -> Verdict:
    if "http_port" not in answers:
        return _skip("http_port is 0: not asked for")
    status, said = answers["http_port"]
    if status is None:
        return Verdict("pass", f"nothing is served there: {said}")
    moved = status in (301, 302, 307, 308) and said.lower().startswith("https://")
    return _holds(moved, f"{status}, to {said[:100]}", f"answered with {status or said}")


# --- client certificates


def asked(answers: Answers, wishes: Wishes) -> Verdict:
    """Judge whether each version that is spoken asks for a certificate, or none does."""
    asks = {}
    if answers["version.tls12"]:
        asks["TLS 1.2"] = answers["features"].asks_certificate
    if answers["version.tls13"]:
        asks["TLS 1.3"] = answers["visit.tls13"][0].asks_certificate
    if None in asks.values():
        raise NotMeasuredError("this Python does not show whether TLS 1.3 asks for a certificate")
    if not asks:
        raise NotMeasuredError("neither TLS 1.2 nor TLS 1.3 is spoken")
    wanted = wishes.client_certificate != "none"
    wrong = [title for title, does in asks.items() if does is not wanted]
    right, not_right = ("asks", "does not ask") if wanted else ("does not ask", "asks")
    severity = "" if wanted else "low"
    verdict = _holds(not wrong, f"it {right}", f"it {not_right} in {' and '.join(wrong)}")
    return Verdict(verdict.result, verdict.actual, severity=severity)


def required(answers: Answers, wishes: Wishes) -> Verdict:
    if wishes.client_certificate != "required":
        return _skip(f"client certificates are {wishes.client_certificate}, not required")
    seen = [f"{title}: {_met(visit)}" for title, visit, _resumed in _visits(answers)]
    if not seen:
        raise NotMeasuredError("neither TLS 1.2 nor TLS 1.3 is spoken")
    let_in = [title for title, visit, _resumed in _visits(answers) if not _turned_away(visit)]
    let_through = f"a request goes through in {' and '.join(let_in)}"
    return _holds(not let_in, "; ".join(seen), let_through, seen)


def _met(visit: Visit) -> str:
    return visit.refusal or f"status {visit.status}"


def _turned_away(visit: Visit) -> bool:
    """Say whether it was refused for want of a certificate. Raises NotMeasuredError in doubt."""
    if visit.refusal:
        return True
    if visit.status is None or visit.status == 429 or visit.status >= 500:
        raise NotMeasuredError(f"the server answers with {visit.status or 'nothing'}")
    # nginx says so in the page of its own 496, and our gateway in its JSON.
    return visit.status in (400, 403, 496) and b"certificate" in visit.body.lower()


def hsts(answers: Answers, wishes: Wishes) -> Verdict:
    if not wishes.hsts:
        return _skip("gateway_hsts is off")
    answered = [visit for _title, visit, _resumed in _visits(answers) if visit.status is not None]
    if not answered:
        raise NotMeasuredError("there was no answer of HTTP")
    sent = [visit.headers.get("strict-transport-security", "") for visit in answered]
    ages = [re.search(r'max-age="?(\d{1,18})', one, re.IGNORECASE) for one in sent]
    fine = all(age is not None and int(age[1]) >= LEAST_HSTS for age in ages)
    return _holds(fine, sent[0], "; ".join(one or "no such header" for one in sent))
