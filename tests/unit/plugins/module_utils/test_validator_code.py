# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in the service's Python besides its code."""

from __future__ import annotations

import hashlib
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import HostView, Process
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_code import (
    interpreter_finding,
    process_finding,
    verifier_finding,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_service import Service

SITE = "usr/lib/python3/dist-packages"
HOOK = b"import os; x = 1\n"


@pytest.fixture
def put(tmp_path):
    def write(path, content):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    return write


def judged(tmp_path):
    return interpreter_finding(HostView(str(tmp_path)))["result"]


def test_a_plain_host_has_nothing(tmp_path, put):
    put(f"{SITE}/apt.py", b"")
    put(f"{SITE}/paths.pth", b"/some/folder\n")
    assert judged(tmp_path) == "pass"


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/x.pth", f"{SITE}/sitecustomize.py", "usr/lib/python3.11/usercustomize.py",
        "usr/local/lib/python3.11/dist-packages/sitecustomize.py",
        "usr/local/lib/python3.13/dist-packages/uvloop/__init__.py",
        "usr/local/lib/python3.11/dist-packages/httptools.py", "etc/ld.so.preload",
    ],
)  # fmt: skip
def test_what_runs_in_every_python(tmp_path, put, path):
    put(path, HOOK)
    (tmp_path / "usr/local/lib/python3.11").mkdir(parents=True, exist_ok=True)
    assert judged(tmp_path) == "fail"


def test_what_a_package_brought_may_run(tmp_path, put):
    md5 = hashlib.md5(HOOK, usedforsecurity=False).hexdigest()
    put(f"{SITE}/distutils.pth", HOOK)
    put("var/lib/dpkg/info/x.md5sums", f"{md5}  {SITE}/distutils.pth\n".encode())
    put("etc/python3.11/sitecustomize.py", HOOK)
    put("usr/lib/python3.11/keep", b"")
    link = tmp_path / "usr/lib/python3.11/sitecustomize.py"
    link.symlink_to("/etc/python3.11/sitecustomize.py")
    status = f"Conffiles:\n /etc/python3.11/sitecustomize.py {md5}\n"
    put("var/lib/dpkg/status", status.encode())
    assert judged(tmp_path) == "pass"
    put("etc/python3.11/sitecustomize.py", HOOK + b"#")
    assert judged(tmp_path) == "fail"


def service(command=(), program="/usr/bin/python3.11", environment=b"A=1\0"):
    words = ("/usr/bin/python3", *(command or ("-I", "-B", "/code", "--config", "/c.json")))
    return Service(Process(1, "python3", program, words, environment, time.time()), ())


@pytest.mark.parametrize(
    ("running", "result"),
    [
        (service(), "pass"),
        (service(program="/usr/bin/python3.11 (deleted)"), "pass"),
        (service(("-B", "/code", "--config", "/c.json")), "fail"),
        (service(("-I", "-B", "/srv/code", "--config", "/c.json")), "fail"),
        (service(program="/srv/python3"), "fail"),
        (service(environment=b"A=1\0LD_PRELOAD=/tmp/x.so\0"), "fail"),
        (service(environment=b"PYTHONPATH=/tmp\0"), "fail"),
        (None, "error"),
        (OSError("x"), "error"),
    ],
)
def test_what_runs_as_the_service(running, result):
    assert process_finding(running, "/code", "/c.json")["result"] == result


def test_a_package_beside_the_command_is_used_first(tmp_path, put):
    class Owned(HostView):
        def owner_of(self, path, uid, gid):
            return ("root", "root")

    put("usr/local/bin/llm-audit", b"x").chmod(0o755)
    host, digest = Owned(str(tmp_path)), hashlib.sha256(b"x").hexdigest()
    assert verifier_finding(host, "/usr/local/bin/llm-audit", digest)["result"] == "pass"
    put("usr/local/bin/llm_key_validator/audit/cli.py", b"")
    assert verifier_finding(host, "/usr/local/bin/llm-audit", digest)["result"] == "fail"
    assert verifier_finding(host, "/usr/local/bin/none", digest)["result"] == "fail"
