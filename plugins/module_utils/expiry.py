# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and revocation lists: how long they are still good, judged from what openssl says,
and whether they are the ones that were put there."""

from __future__ import annotations

import hashlib
import re
import typing as t
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)

__all__ = ("COMMANDS", "Ask", "content_finding", "days_left", "expiry_findings", "pem_blocks")

# Gives what openssl prints for one PEM block on its standard input. Raises ValueError.
Ask = Callable[[str, str], str]

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----[^-]+-----END \1-----")
# What a block is, and which of openssl's words tell its name and its last second (openssl-x509(1),
# openssl-crl(1))
COMMANDS = {
    "CERTIFICATE": ("x509", "-noout", "-subject", "-enddate"),
    "X509 CRL": ("crl", "-noout", "-issuer", "-nextupdate"),
}
_WORDS = {"CERTIFICATE": "certificate", "X509 CRL": "revocation list"}
_SECONDS_A_DAY = 86400
_REMEDY = "Run llmsec.hardening.harden, which renews what is due, or bring new files."


def pem_blocks(text: str) -> list[tuple[str, str]]:
    """Return (kind, PEM) of each certificate and revocation list in a file, in their order."""
    return [(found[1], found[0]) for found in _BLOCK.finditer(text) if found[1] in COMMANDS]


def days_left(printed: str, now: float) -> float:
    """Return the days until the end that openssl printed; below 0 it is over. Raises ValueError.

    openssl writes `notAfter=Nov 25 08:00:00 2026 GMT`, the day padded with a blank.
    """
    match = re.search(r"^(?:notAfter|nextUpdate)=(.+) GMT$", printed, re.MULTILINE)
    if match is None:
        raise ValueError("no end that can be read")
    # Written by hand: strptime knows the months by the names of the locale.
    months = "JanFebMarAprMayJunJulAugSepOctNovDec"
    month, day, clock, year = match[1].split()
    hour, minute, second = (int(part) for part in clock.split(":"))
    end = datetime(
        int(year), months.index(month) // 3 + 1, int(day), hour, minute, second, tzinfo=UTC
    )
    return (end.timestamp() - now) / _SECONDS_A_DAY


def _name(printed: str) -> str:
    match = re.search(r"^(?:subject|issuer)=(.*)$", printed, re.MULTILINE)
    return match[1].strip() if match else "without a name"


def expiry_findings(
    path: str, text: str | None, ask: Ask, now: float, least_days: int
) -> Iterator[dict[str, t.Any]]:
    """Yield a finding for each certificate and revocation list in the file.

    `text` is what is in it, None when it is not there. A file without any of the two is an error.
    """
    title = f"{path} is good for {least_days} days more"
    blocks = pem_blocks(text) if text is not None else []
    if not blocks:
        why = "there is no such file" if text is None else "no certificate or list is in it"
        yield not_measured(f"certificates.{path}", "tls", title, why, _REMEDY)
    for number, (kind, pem) in enumerate(blocks, 1):
        place = f"certificates.{path}.{number}"
        # Without its list of revoked certificates nobody's certificate counts.
        control = "mtls" if kind == "X509 CRL" else "tls"
        try:
            printed = ask(kind, pem)
            left = days_left(printed, now)
        except ValueError as exc:
            yield not_measured(place, control, title, exc, _REMEDY)
            continue
        yield finding(
            place,
            control,
            f"the {_WORDS[kind]} {_name(printed)} in {path} is good for {least_days} days more",
            "high" if left <= 0 else "medium",
            "pass" if left >= least_days else "fail",
            expected=f"at least {least_days} days",
            actual=f"{int(left)} days left" if left > 0 else "it has expired",
            evidence=printed.splitlines(),
            remediation=_REMEDY,
        )


def content_finding(path: str, data: bytes | None, sha256: str) -> dict[str, t.Any]:
    """Return whether the file is the one with this checksum (lower-case hex).

    One more CA in it would let in whom that CA likes, an older list whoever was revoked since.
    `data` is what is in the file, None when it is not there.
    """
    where, control = f"certificates.{path}.unchanged", "mtls"
    title = f"{path} is as the control node has it"
    remedy = "See who changed it, then run llmsec.hardening.harden, which puts it back."
    if data is None:
        return not_measured(where, control, title, "there is no such file", remedy)
    found = hashlib.sha256(data).hexdigest()
    return finding(
        where, control, title, "high", "pass" if found == sha256 else "fail",
        expected=f"SHA-256 {sha256}", actual=f"SHA-256 {found}", remediation=remedy,
    )  # fmt: skip
