# SPDX-License-Identifier: GPL-3.0-or-later
"""Old and new servers, and what apt-cache really prints."""

from __future__ import annotations

import itertools
import re

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    MALICIOUS_RELEASES,
    VERSION_FLOORS,
    compare,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_versions import (
    QUESTIONS,
    Packages,
    malicious_files,
    packages_finding,
    parse_answer,
    parse_output,
    parse_policy,
    version_finding,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

ID = "service.x.version"
DAY = 86400


@pytest.mark.parametrize(
    ("server", "version", "result", "named"),
    [
        ("ollama", "0.35.0", "pass", ""),
        ("ollama", "0.36.1", "pass", ""),
        ("ollama", "0.34.5", "fail", "CVE-2026-103663"),
        ("ollama", "0.35.0-rc1", "fail", "CVE-2026-103663"),
        ("ollama", "0.1.20", "fail", "CVE-2024-28224"),
        ("ollama", "0.0.0-dev build", "error", "not a version number"),
        ("ollama", Unread("nobody answers"), "error", "nobody answers"),
        ("localai", "v4.5.2", "fail", "CVE-2026-59707"),
        ("localai", "v4.6.0", "pass", ""),
        ("litellm", "1.84.0", "pass", ""),
        ("litellm", "1.83.10", "fail", "CVE-2026-49468"),
        ("litellm", "1.82.8", "fail", "malicious"),
    ],
)
def test_versions(server, version, result, named):
    finding = version_finding(ID, server, version)
    assert (finding["result"], finding["control"], finding["severity"]) == (
        result, "versions", "high",
    )  # fmt: skip
    assert named in "\n".join([finding["actual"], *finding["evidence"]])


def test_every_server_of_the_floors_can_be_asked():
    assert VERSION_FLOORS.keys() == QUESTIONS.keys()
    assert MALICIOUS_RELEASES.keys() <= QUESTIONS.keys()


@pytest.mark.parametrize("floors", VERSION_FLOORS.values(), ids=VERSION_FLOORS)
def test_floors_name_cves_and_begin_with_the_newest(floors):
    for newer, older in itertools.pairwise(floors):
        assert compare(newer.version, older.version) > 0
    assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}", cve) for floor in floors for cve in floor.cves)


def test_what_a_malicious_release_left_behind():
    path = "/opt/litellm/lib/python3.11/site-packages/litellm_init.pth"
    assert malicious_files([path, "/x/distutils-precedence.pth"]) == [path]
    for version in ("1.84.0", Unread("not running")):
        finding = version_finding(ID, "litellm", version, [path])
        assert finding["result"] == "fail"
        assert finding["actual"] == f"{path} is there"


@pytest.mark.parametrize(
    ("server", "body", "version"),
    [
        ("ollama", b'{"version":"0.35.0"}', "0.35.0"),
        ("localai", b'{"version":"v4.7.0 (8a1c2d3)"}', "v4.7.0"),
        ("litellm", b'{"status":"connected","litellm_version":"1.84.2"}', "1.84.2"),
    ],
)
def test_answers(server, body, version):
    assert parse_answer(server, body) == version


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"version":""}', b"\xff", b"Ollama"])
def test_answers_without_a_version(body):
    with pytest.raises(ValueError, match="holds no version"):
        parse_answer("ollama", body)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("ollama version is 0.35.0\n", "0.35.0"),
        ("Warning: could not connect to a running Ollama instance\n"
         "Warning: client version is 0.34.0-rc2\n", "0.34.0-rc2"),
        ("\nLiteLLM: Current Version = 1.84.0\n", "1.84.0"),
    ],
)  # fmt: skip
def test_what_programs_print(output, version):
    assert parse_output(output) == version


def test_a_program_that_prints_none():
    with pytest.raises(ValueError, match="prints no version"):
        parse_output("usage: env [OPTION]...")


NGINX = """\
nginx:
  Installed: 1.22.1-9+deb12u1
  Candidate: 1.22.1-9+deb12u11
  Version table:
     1.22.1-9+deb12u11 500
        500 http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
     1.22.1-9+deb12u9 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
 *** 1.22.1-9+deb12u1 100
        100 /var/lib/dpkg/status
"""
UPDATED = NGINX.replace("Installed: 1.22.1-9+deb12u1\n", "Installed: 1.22.1-9+deb12u11\n").replace(
    "     1.22.1-9+deb12u11 500", " *** 1.22.1-9+deb12u11 500"
)
PYTHON = """\
python3:
  Installed: 3.11.2-1
  Candidate: 3.11.2-1+b1
  Version table:
     3.11.2-1+b1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
 *** 3.11.2-1 100
        100 /var/lib/dpkg/status
"""
ABSENT = """\
apache2:
  Installed: (none)
  Candidate: 2.4.62-1~deb12u2
  Version table:
     2.4.62-1~deb12u2 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
"""
# A pin holds the older version back: nothing is pending.
PINNED = NGINX.replace("Candidate: 1.22.1-9+deb12u11", "Candidate: 1.22.1-9+deb12u1")


def judged(text, names, age=DAY):
    return packages_finding("x", "x", names, Packages(parse_policy(text), age))


@pytest.mark.parametrize(
    ("text", "names", "result", "severity"),
    [
        (UPDATED, ["nginx"], "pass", None),
        (PINNED, ["nginx"], "pass", None),
        (NGINX, ["nginx"], "fail", "medium"),
        (PYTHON, ["python3"], "fail", "low"),
        (PYTHON + UPDATED, ["nginx", "python3"], "fail", "low"),
        (PYTHON + NGINX, ["nginx", "python3"], "fail", "medium"),
        (ABSENT, ["apache2"], "skip", None),
        ("", ["nginx"], "skip", None),
    ],
)
def test_packages(text, names, result, severity):
    finding = judged(text, names)
    assert finding["result"] == result
    assert severity in (None, finding["severity"])


def test_a_security_update_is_named_first():
    finding = judged(PYTHON + NGINX, ["python3", "nginx"])
    assert "nginx 1.22.1-9+deb12u1: security update to 1.22.1-9+deb12u11" in finding["actual"]
    assert len(finding["evidence"]) == 2


@pytest.mark.parametrize(("age", "why"), [(None, "no package lists"), (8.5 * DAY, "8 days old")])
def test_lists_that_say_nothing_are_a_reason(age, why):
    finding = judged(NGINX, ["nginx"], age)
    assert finding["result"] == "skip"
    assert why in finding["actual"]


def test_apt_that_fails_is_not_measured():
    finding = packages_finding("x", "x", ["nginx"], Unread("apt-cache failed: 100"))
    assert finding["result"] == "error"
