# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a unit from a tree of files, from real processes, and from servers on loopback."""

from __future__ import annotations

import getpass
import http.server
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.service_checks import (
    Expected,
    Process,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_host import ServiceHost
from ansible_collections.llmsec.hardening.plugins.module_utils.service_versions import Packages
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

from tests.unit.plugins.module_utils.test_service_versions import NGINX

UNIT = "/etc/systemd/system/x.service"
OWN = "/etc/systemd/system/x.service.d/50-llm-hardening.conf"
NO_PORT = "127.0.0.1:1"


class Root:
    """A directory that plays the host's root, and programs that answer as told."""

    def __init__(self, top):
        self.top = top
        self.answers = {}
        self.calls = []
        self.show(MainPID="0")
        self.write(UNIT, "[Service]\nExecStart=/usr/local/bin/ollama serve\n")

    def write(self, path, text=""):
        place = self.top / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def show(self, **values):
        facts = {"LoadState": "loaded", "ActiveState": "active", "FragmentPath": UNIT, **values}
        text = "".join(f"{key}={value}\n" for key, value in facts.items())
        self.answers["systemctl"] = (0, text, "")

    def run(self, command):
        self.calls.append(command)
        return self.answers.get(command[0], (127, "", f"{command[0]} is not installed"))

    def host(self, **settings):
        return ServiceHost(self.run, **{"is_root": False, "root": str(self.top), **settings})

    def facts(self, expected=Expected("x.service"), address=NO_PORT, **settings):  # noqa: B008
        return self.host(**settings).facts(expected, address, Packages())


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


# -- Files -----------------------------------------------------------------------------------------


def test_files_with_their_environment(root):
    root.write(OWN, "[Service]\nEnvironmentFile=-/etc/default/x\nEnvironmentFile=/etc/%p.env\n")
    root.write("/etc/default/x", "A=1\n")
    root.write("/etc/x.env", "B=2\n")
    files = root.facts().files
    assert [each.path for each in files.fragments] == [UNIT, OWN]
    assert [each.path for each in files.environment] == ["/etc/default/x", "/etc/x.env"]
    folder = OWN.rpartition("/")[0]
    assert set(files.written) == {UNIT, OWN, folder, "/etc/default/x", "/etc/x.env"}
    assert (files.links, files.hidden) == ({}, ())


def test_a_file_that_was_put_back_was_written_then(root):
    place = root.write(OWN, "[Service]\nUMask=0077\n")
    os.utime(place, (1000, 1000))
    assert root.facts().files.written[OWN] > 1000
    packaged = "/usr/lib/systemd/system/x.service"
    os.utime(root.write(packaged, "[Service]\n"), (1000, 1000))
    (root.top / UNIT.lstrip("/")).unlink()
    assert root.facts().files.written[packaged] == 1000


def test_a_drop_in_that_was_taken_away_leaves_its_folders_time(root):
    place = root.write(OWN, "[Service]\n")
    os.utime(place.parent, (1000, 1000))
    later = root.write(OWN.replace("50-llm-hardening", "99-later"), "[Service]\n")
    later.unlink()
    assert root.facts().files.written[OWN.rpartition("/")[0]] > 1000


def test_a_drop_in_that_is_a_link_to_nothing(root):
    root.write(OWN).unlink()
    (root.top / OWN.lstrip("/")).symlink_to("/dev/null")
    files = root.facts().files
    assert files.links == {OWN: "/dev/null"}
    assert OWN not in files.written
    assert [each.text for each in files.dropins] == [""]


def test_a_unit_file_that_hides_another(root):
    packaged = "/usr/lib/systemd/system/x.service"
    root.write(packaged, "[Service]\n")
    # As on Debian, where /lib is a link into /usr
    (root.top / "lib").symlink_to("usr/lib")
    assert root.facts().files.hidden == (packaged,)
    (root.top / UNIT.lstrip("/")).unlink()
    assert root.facts().files.hidden == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="the files must be root's")
def test_a_file_that_others_may_change(root):
    assert root.facts().files.loose == ()
    place = root.write(OWN, "[Service]\n")
    place.chmod(0o664)
    assert root.facts().files.loose == (f"{OWN} belongs to root and has mode 0664",)
    place.chmod(0o644)
    os.chown(place, 1, 1)
    (text,) = root.facts().files.loose
    assert text.startswith(f"{OWN} belongs to ")


def test_what_cannot_be_read_is_not_measured(root):
    root.write(OWN, "[Service]\nEnvironmentFile=/etc/%m.env\n")
    assert "cannot tell what %m stands for" in root.facts().files.why
    (root.top / OWN.lstrip("/")).unlink()
    (root.top / OWN.lstrip("/")).symlink_to(root.top / "nowhere")
    assert isinstance(root.facts().files, Unread)


def test_systemd_that_does_not_answer(root):
    root.answers["systemctl"] = (1, "", "Failed to connect to bus\n")
    facts = root.facts()
    assert facts.show.why == "systemctl failed: Failed to connect to bus"
    assert [one["result"] for one in judge(Expected("x.service"), facts)] == ["error"]


# -- Process ---------------------------------------------------------------------------------------


@pytest.fixture
def child():
    command = [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={"OLLAMA_HOST": "a=b", "EMPTY": ""}, **pipes) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def test_a_real_process(root, child):
    root.show(MainPID=str(child.pid))
    process = root.facts().process
    assert isinstance(process, Process)
    assert process.users == (getpass.getuser(),) * 4
    assert process.environment["OLLAMA_HOST"] == "a=b"
    assert process.environment["EMPTY"] == ""
    assert process.status["NoNewPrivs"] in ("0", "1")
    assert int(process.status["CapBnd"], 16) >= 0
    assert len(process.core_limits) == 2


def test_no_process_and_one_that_is_gone(root, tmp_path):
    assert root.facts().process is None
    root.show(MainPID="7")
    gone = root.facts(proc=str(tmp_path / "proc")).process
    assert isinstance(gone, Unread)


def test_a_process_of_which_the_kernel_tells_too_little(root, tmp_path):
    root.show(MainPID="7")
    for name in ("status", "environ", "limits", "cgroup", "cmdline"):
        root.write(f"/proc/7/{name}")
    root.write("/proc/1/cgroup", "0::/init.scope\n")
    assert isinstance(root.facts(proc=str(tmp_path / "proc")).process, Unread)
    root.write("/proc/7/status", "Uid:\t0\t0\t0\t4294967290\n")
    root.write("/proc/7/cgroup", "0::/system.slice/x.service\n")
    process = root.facts(proc=str(tmp_path / "proc")).process
    assert (process.users[0], process.users[3]) == ("root", "4294967290")
    assert (process.unit, process.core_limits) == ("x.service", ())


# -- Versions --------------------------------------------------------------------------------------


@contextmanager
def serving(status, body):
    """Serve one answer on loopback; give its address and what was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Host"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


OLLAMA = Expected("x.service", server="ollama")


def test_the_running_server_is_asked(root):
    with serving(200, b'{"version":"0.34.1"}') as (address, asked):
        assert root.facts(OLLAMA, address).version == "0.34.1"
    # Ollama answers 403 to a foreign Host.
    assert asked == [("/api/version", "localhost:11434")]
    assert [call[0] for call in root.calls] == ["systemctl"]


def test_a_server_of_no_unit_is_asked_all_the_same(root):
    root.answers["systemctl"] = (0, "LoadState=not-found\n", "")
    with serving(200, b'{"version":"v4.5.0 (abc)"}') as (address, asked):
        facts = root.facts(Expected("local-ai.service", server="localai"), address)
    assert facts.version == "v4.5.0"
    assert asked == [("/version", "127.0.0.1:8080")]


@pytest.mark.parametrize("is_root", [False, True])
def test_its_program_is_asked_when_it_is_down_but_never_as_root(root, is_root):
    root.answers["timeout"] = (0, "", "Warning: client version is 0.33.0\n")
    assert root.facts(OLLAMA, is_root=is_root).version == "0.33.0"
    command = root.calls[-1]
    assert command[-2:] == ["/usr/local/bin/ollama", "--version"]
    assert ("setpriv" in command, "--reuid=65534" in command) == (is_root, is_root)


@pytest.mark.parametrize(
    ("status", "body", "start"),
    [
        (500, b'{"version":"0.35.0"}', "/bin/x"),
        (200, b"nonsense", "/bin/x"),
        (200, b"nonsense", "ollama"),
    ],
)
def test_a_version_that_nobody_says_is_not_measured(root, status, body, start):
    root.write(UNIT, f"[Service]\nExecStart={start}\n")
    root.answers["timeout"] = (0, "usage", "")
    with serving(status, body) as (address, _asked):
        found = root.facts(OLLAMA, address).version
    assert isinstance(found, Unread)
    assert found.why.startswith(f"{address}: it")


def test_other_programs_than_those_known_are_not_run(root):
    assert isinstance(root.facts(Expected("x.service", server="localai")).version, Unread)
    assert "timeout" not in [call[0] for call in root.calls]


def test_what_lies_beside_litellm(root):
    root.write(UNIT, "[Service]\nExecStart=/opt/litellm/bin/litellm --port 4000\n")
    path = "/opt/litellm/lib/python3.11/site-packages/litellm_init.pth"
    root.write(path)
    root.write("/usr/lib/python3/dist-packages/x.pth")
    facts = root.facts(Expected("x.service", server="litellm"))
    assert set(facts.left_behind) == {path, "/usr/lib/python3/dist-packages/x.pth"}
    assert root.facts(OLLAMA).left_behind == ()


# -- Packages --------------------------------------------------------------------------------------


def test_apt_is_asked_once_with_the_age_of_its_lists(root):
    root.answers["apt-cache"] = (0, NGINX, "")
    place = root.write("/var/lib/apt/lists/deb.debian.org_debian_dists_x_Packages.lz4")
    os.utime(place, (0, 0))  # the mirror's time
    os.utime(place.parent, (5000, 5000))
    found = root.host().packages(["nginx"], now=5060)
    assert (found.age, found.known["nginx"].pending) == (60, True)
    assert root.calls == [["apt-cache", "policy", "nginx"]]


def test_no_lists_no_apt_no_question(root):
    root.answers["apt-cache"] = (0, NGINX, "")
    assert root.host().packages(["nginx"], now=0).age is None
    del root.answers["apt-cache"]
    assert "not installed" in root.host().packages(["nginx"], now=0).why
    root.calls.clear()
    assert root.host().packages([], now=0) == Packages()
    assert root.calls == []
