# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nginx runs, from which files, and who may change them: a made-up host."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import expected_from
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_host import (
    GatewayHost,
    HostError,
    Launch,
    Process,
    file_findings,
    main_master,
    master_finding,
    masters_of,
    parse_launch,
    permission_problems,
    unit_finding,
    verify,
)

from tests.unit.plugins.gateway_files import DEBIAN, MAIN, SITE, options, red, rendered

DEBIANS = "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;"
MASTER = Process(10, 1, 100, DEBIANS, "/usr/sbin/nginx", "nginx.service", "net:[1]", 0)
WORKER = Process(11, 10, 110, "nginx: worker process", "", "nginx.service", "net:[1]", 33)


def process(**changes) -> Process:
    facts = {name: getattr(MASTER, name) for name in Process.__slots__}
    return Process(**{**facts, **changes})


class FakeHost(GatewayHost):
    """A host whose files are a dictionary; they were changed at `times` (seconds, as started)."""

    def __init__(self, files, **facts) -> None:
        super().__init__(run=self._nginx, binary=facts.pop("binary", "/usr/sbin/nginx"))
        self.files = dict(files)
        self.found = [MASTER, WORKER]
        self.times: dict[str, float] = {}
        self.owners: dict[str, tuple[int, int, int]] = {}
        self.answer = None
        self.loaded: list[str] = ["/usr/sbin/nginx", "/usr/lib/x86_64-linux-gnu/libc.so.6"]
        self.hidden: set[str] = set()
        self.asked: list[list[str]] = []
        for name, value in facts.items():
            setattr(self, name, value)

    def processes(self):
        return self.found

    def _nginx(self, command):
        self.asked.append(list(command))
        if self.answer is not None:
            return self.answer
        dump = "".join(f"# configuration file {path}:\n{x}\n" for path, x in self.files.items())
        return 0, dump, "nginx: configuration file /etc/nginx/nginx.conf test is successful\n"

    def read(self, path):
        return self.files[path]

    def owner(self, path):
        kind = stat.S_IFREG if path in self.files else stat.S_IFDIR
        return self.owners.get(path, (0, 0, kind | 0o755))

    def code(self, pid):
        return self.loaded

    def sees_another(self, pid, path):
        return path in self.hidden

    def stale(self, workers, path):
        return self.times.get(path, 0) > min(one.start for one in workers)

    def owned(self):
        return sorted(path for path in self.files if "llm-gateway" in path)

    def addresses(self):
        return ["192.0.2.1"]


def findings(host, files=None):
    found = verify(host, lambda known: expected_from(options(), known), files)
    return {one["id"]: one for one in found}


@pytest.fixture(scope="module")
def green():
    return rendered()["api_key_intermediate"]


class TestLaunch:
    @pytest.mark.parametrize(
        ("words", "launch"),
        [
            ("/usr/sbin/nginx", Launch()),
            (
                "/usr/sbin/nginx -g daemon on; master_process on;",
                Launch(directives="daemon on; master_process on;"),
            ),
            (
                "nginx -c /x.conf -p /y -g daemon off;",
                Launch("/x.conf", "/y", "daemon off;"),
            ),
            ("nginx -e /log -c x.conf", Launch("x.conf")),
        ],
    )
    def test_the_title_tells(self, words, launch):
        assert parse_launch(f"nginx: master process {words}") == launch

    @pytest.mark.parametrize("words", ["nginx what", "nginx -p here"])
    def test_what_is_not_known_is_not_guessed(self, words):
        with pytest.raises(HostError):
            parse_launch(f"nginx: master process {words}")

    def test_nginx_is_asked_as_it_was_started(self, green):
        title = f"{DEBIANS} -c /etc/nginx/nginx.conf -p /usr/share/nginx"
        host = FakeHost(green, found=[process(title=title), WORKER])
        assert findings(host)["gateway.configuration"]["result"] == "pass"
        (asked,) = host.asked
        assert asked == [
            "/usr/sbin/nginx", "-T", "-p", "/usr/share/nginx", "-c", "/etc/nginx/nginx.conf",
            "-g", "daemon on; master_process on;",
        ]  # fmt: skip

    def test_directives_of_the_command_line_are_judged(self, green):
        title = f"{DEBIANS} error_log /x debug;"
        host = FakeHost(green, found=[process(title=title), WORKER])
        assert red(findings(host)) == {"gateway.logs.debug"}
        loaded = f"{DEBIANS} load_module /tmp/x.so;"
        host = FakeHost(green, found=[process(title=loaded), WORKER])
        assert red(findings(host)) == {"gateway.modules.place"}


class TestWholeHost:
    def test_a_hardened_host_is_green(self, green):
        found = findings(FakeHost(green), [{"path": SITE, "content": green[SITE]}])
        assert red(found) == {"gateway.extra_files"}
        ours = [{"path": p, "content": x} for p, x in green.items() if "llm-gateway" in p]
        found = findings(FakeHost(green), ours)
        assert red(found) == set()
        assert len(found) == 52

    def test_without_nginx_one_thing_is_said(self):
        found = findings(FakeHost({}, binary=None, found=[]))
        assert list(found) == ["gateway.present"]
        assert (found["gateway.present"]["result"], found["gateway.present"]["severity"]) == (
            "fail",
            "critical",
        )

    def test_an_nginx_of_somebody_elses_is_named(self):
        found = findings(FakeHost({}, binary=None))
        assert DEBIANS in found["gateway.present"]["evidence"]

    def test_nobody_but_root_can_tell(self, green):
        found = findings(FakeHost(green, is_root=False))
        assert {name: one["result"] for name, one in found.items()} == {
            "gateway.configuration": "error"
        }

    def test_debians_own_lacks_the_gateway(self):
        assert red(findings(FakeHost(DEBIAN))) == {"gateway.present"}

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            ((1, "", 'x\nnginx: [emerg] unknown directive "a" in /x:1\n'), "unknown directive"),
            ((1, "", ""), "code 1"),
            ((0, "", ""), "no configuration"),
            ((0, "something else", ""), "between two files"),
            ((0, f"# configuration file {MAIN}:\nother\n", ""), "a moment ago"),
        ],
    )
    def test_what_nginx_does_not_print_is_not_judged(self, green, answer, why):
        found = findings(FakeHost(green, answer=answer))
        assert found["gateway.configuration"]["result"] == "error"
        assert why in found["gateway.configuration"]["actual"]
        assert not [name for name in found if name.startswith(("gateway.auth", "gateway.tls"))]

    def test_a_program_in_the_configuration_is_not_judged(self, green):
        files = {**green, "/etc/nginx/conf.d/x.conf": "init_by_lua_block { x = 1 }\n"}
        assert findings(FakeHost(files))["gateway.configuration"]["result"] == "error"

    def test_a_stopped_nginx_is_judged_by_its_files(self, green):
        found = findings(FakeHost(green, found=[]))
        assert red(found) == {"gateway.loaded", "gateway.master"}
        assert {found[name]["result"] for name in red(found)} == {"error"}

    @pytest.mark.parametrize(
        "path",
        [SITE, MAIN, "/etc/nginx/conf.d", "/etc/llm-gateway/pki/server.crt"],
    )
    def test_what_is_newer_than_the_workers_is_not_served(self, green, path):
        found = findings(FakeHost(green, times={path: 111}))
        assert red(found) == {"gateway.loaded"}
        assert found["gateway.loaded"]["evidence"] == [f"{path} was changed later"]
        assert red(findings(FakeHost(green, times={path: 109}))) == set()

    def test_the_oldest_worker_counts(self, green):
        young = process(pid=12, parent=10, start=900, title="nginx: worker process", uid=33)
        host = FakeHost(green, times={SITE: 500}, found=[MASTER, young, WORKER])
        assert red(findings(host)) == {"gateway.loaded"}

    def test_workers_that_end_do_not_count(self, green):
        ending = process(pid=12, parent=10, start=5, title="nginx: worker process is shutting down")
        host = FakeHost(green, times={SITE: 50}, found=[MASTER, ending, WORKER])
        assert red(findings(host)) == set()

    def test_without_workers_nothing_is_served(self, green):
        found = findings(FakeHost(green, found=[MASTER]))
        assert found["gateway.loaded"]["result"] == "error"

    def test_what_the_running_nginx_does_not_see(self, green):
        found = findings(FakeHost(green, hidden={SITE}))
        assert red(found) == {"gateway.loaded"}
        assert found["gateway.loaded"]["evidence"] == [
            f"{SITE} is another file for the nginx that runs"
        ]

    def test_workers_that_are_root(self, green):
        root = process(pid=11, parent=10, title="nginx: worker process", uid=0)
        assert red(findings(FakeHost(green, found=[MASTER, root]))) == {"gateway.workers"}
        text = green[MAIN].replace("user www-data;", "user root;")
        found = findings(FakeHost({**green, MAIN: text}))
        assert red(found) == {"gateway.workers"}
        assert found["gateway.workers"]["control"] == "service_sandbox"

    def test_who_may_write_keys_and_modules(self, green):
        for path in ("/etc/llm-gateway/pki", "/usr/share/nginx/modules/ngx_stream_module.so"):
            host = FakeHost(green, owners={path: (0, 0, stat.S_IFDIR | 0o777)})
            assert red(findings(host)) == {"gateway.permissions"}

    def test_who_may_write(self, green):
        host = FakeHost(green, owners={SITE: (0, 0, stat.S_IFREG | 0o666)})
        found = findings(host)
        assert red(found) == {"gateway.permissions"}
        assert found["gateway.permissions"]["evidence"] == [f"{SITE}: owner 0:0, mode 0666"]


class TestMasters:
    def finding(self, *masters):
        host = FakeHost({})
        return master_finding(host, masters, main_master(masters, "nginx"))

    def test_one_of_the_unit(self):
        assert self.finding(MASTER)["result"] == "pass"

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"program": "/usr/sbin/nginx (deleted)"}, "was replaced"),
            ({"program": "/opt/nginx"}, "it runs /opt/nginx"),
            ({"unit": "cron.service"}, "it runs in cron.service"),
            ({"unit": None}, "it runs in no unit"),
            ({"unit": "nginx-other.service"}, "it runs in nginx-other.service"),
            ({"title": f"{DEBIANS} -c /root/x.conf"}, "-c /root/x.conf"),
            ({"title": f"{DEBIANS} -p /srv/nginx/"}, "-p /srv/nginx/"),
        ],
    )
    def test_one_of_another_kind(self, changes, why):
        found = self.finding(process(**changes))
        assert found["result"] == "fail"
        assert why in found["actual"]

    def test_two(self):
        found = self.finding(MASTER, process(pid=99, title="nginx: master process nginx -c /x"))
        assert found["result"] == "fail"
        assert "-c /x" in found["actual"]

    def test_code_from_elsewhere(self):
        host = FakeHost({}, loaded=["/usr/sbin/nginx", "/srv/x.so"])
        found = master_finding(host, [MASTER], MASTER)
        assert found["evidence"] == ["it has loaded /srv/x.so"]

    def test_a_worker_whose_master_was_killed(self):
        orphan = process(pid=5, parent=1, title="nginx: worker process", uid=33)
        masters = masters_of([orphan, MASTER, WORKER])
        assert main_master(masters, "nginx") is MASTER
        found = self.finding(*masters)
        assert found["actual"] == "nginx runs twice: nginx: worker process"

    def test_a_users_own(self):
        assert self.finding(process(uid=1000, unit="user@1000.service"))["result"] == "fail"

    def test_none(self):
        assert self.finding()["result"] == "error"

    def test_who_is_one(self):
        upgraded = process(pid=20, parent=10)
        bare = process(pid=30, parent=1, title="nginx -g daemon off; master_process off;")
        helper = process(pid=12, parent=10, title="nginx: cache manager process")
        starting = process(pid=13, parent=10, title="/usr/sbin/nginx -g x;")
        found = masters_of([MASTER, WORKER, upgraded, bare, helper, starting])
        assert [one.pid for one in found] == [10, 20, 30]


class TestUnit:
    """What systemd would start nginx with the next time."""

    START = (
        "{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g daemon on; master_process on;%s ;"
        " ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; status=0/0 }"
    )

    def finding(self, start=START % "", **facts):
        shown = {"LoadState": "loaded", "ExecStart": start, "Environment": "", **facts}
        text = "".join(f"{name}={value}\n" for name, value in shown.items())
        return unit_finding(FakeHost({}, answer=(0, text, ""), systemctl="systemctl"))

    def test_debians(self):
        assert self.finding()["result"] == "pass"
        assert self.finding(Environment="TZ=UTC", BindPaths="/srv/www")["result"] == "pass"

    @pytest.mark.parametrize(
        ("facts", "why"),
        [
            ({"start": START % " -c /tmp/other.conf"}, "-c /tmp/other.conf"),
            ({"start": START % " -p /tmp"}, "-p /tmp"),
            ({"start": START.replace("[]=/usr/sbin", "[]=/opt") % ""}, "ExecStart=/opt/nginx"),
            ({"Environment": "TZ=UTC LD_PRELOAD=/x.so"}, "LD_PRELOAD is set"),
            ({"RootDirectory": "/srv/x"}, "RootDirectory=/srv/x"),
            ({"BindReadOnlyPaths": "/srv/x:/etc/nginx:rbind"}, "/etc/nginx"),
        ],
    )
    def test_what_changes_it(self, facts, why):
        found = self.finding(**facts)
        assert (found["result"], found["severity"]) == ("fail", "high")
        assert why in found["actual"]

    def test_where_there_is_none(self):
        assert unit_finding(FakeHost({}))["result"] == "skip"
        assert self.finding(LoadState="not-found")["result"] == "skip"

    def test_what_systemd_does_not_tell(self):
        host = FakeHost({}, answer=(1, "", "no bus"), systemctl="systemctl")
        assert unit_finding(host)["result"] == "error"


class TestPermissions:
    def problems(self, owners, path="/etc/nginx/nginx.conf", real=str):
        def owner(place):
            return owners.get(place, (0, 0, stat.S_IFDIR | 0o755))

        return permission_problems([path], owner, real)

    @pytest.mark.parametrize(
        ("place", "owner", "good"),
        [
            ("/etc/nginx/nginx.conf", (0, 0, 0o100644), True),
            ("/etc/nginx/nginx.conf", (0, 0, 0o100664), True),
            ("/etc/nginx/nginx.conf", (0, 33, 0o100664), False),
            ("/etc/nginx/nginx.conf", (0, 33, 0o100640), True),
            ("/etc/nginx/nginx.conf", (33, 0, 0o100640), False),
            ("/etc/nginx", (0, 0, 0o40757), False),
            ("/etc", (1000, 0, 0o40755), False),
            ("/", (0, 0, 0o40755), True),
            ("/etc/nginx/nginx.conf", (0, 0, 0o120777), True),
            ("/etc/nginx/nginx.conf", (1000, 0, 0o120777), False),
        ],
    )
    def test_only_root_may_change_the_way(self, place, owner, good):
        assert (self.problems({place: owner}) == []) is good

    def test_what_a_link_leads_to_counts(self):
        found = self.problems(
            {"/srv/x": (1000, 0, 0o100644)},
            real=lambda path: "/srv/x" if path.endswith(".conf") else path,
        )
        assert found == ["/srv/x: owner 1000:0, mode 0644"]


class TestFiles:
    TEXT = "a;\nb;\n"

    @pytest.fixture
    def host(self, tmp_path: Path) -> GatewayHost:
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "llm-gateway").mkdir()
        (tmp_path / "llm-gateway/tls.conf").write_text(self.TEXT)
        (tmp_path / "llm-gateway/tls.conf").chmod(0o640)
        (tmp_path / "conf.d/other.conf").write_text("")
        return GatewayHost(lambda _command: (0, "", ""), "/usr/sbin/nginx", root=str(tmp_path))

    def found(self, host, **wanted):
        path = f"{host.root}/llm-gateway/tls.conf"
        return {one["id"]: one for one in file_findings(host, [{"path": path, **wanted}])}

    def test_unchanged(self, host):
        for wanted in (
            {"content": self.TEXT},
            {"sha256": hashlib.sha256(self.TEXT.encode()).hexdigest()},
            {"content": self.TEXT, "mode": "0640", "owner": os.getuid()},
        ):
            found = self.found(host, **wanted)
            assert red(found) == set()
            assert set(found) == {"gateway.files.tls.conf", "gateway.extra_files"}
            assert found["gateway.files.tls.conf"]["control"] == "tls"

    @pytest.mark.parametrize(
        ("wanted", "why"),
        [
            ({"content": "a;\nsecret;\nc;\n"}, "1 lines are new, 2 are gone"),
            ({"sha256": "0" * 64}, "2 lines now"),
            ({"content": TEXT, "mode": "0600"}, "mode 0640, not 0600"),
            ({"content": TEXT, "owner": 12345}, "not 12345"),
        ],
    )
    def test_changed(self, host, wanted, why):
        found = self.found(host, **wanted)
        assert red(found) == {"gateway.files.tls.conf"}
        assert why in found["gateway.files.tls.conf"]["actual"]
        assert "secret" not in str(found)

    def test_missing_or_no_file(self, host):
        path = Path(host.root) / "llm-gateway/tls.conf"
        path.unlink()
        assert self.found(host, content="")["gateway.files.tls.conf"]["actual"] == "it is missing"
        path.symlink_to("/dev/null")
        assert "no plain" in self.found(host, content="")["gateway.files.tls.conf"]["actual"]

    @pytest.mark.parametrize(
        "name",
        [
            "conf.d/llm-gateway2.conf", "llm-gateway/x.conf", "llm-gateway/.hidden",
            "llm-gateway/deep/er.conf",
        ],
    )  # fmt: skip
    def test_a_file_too_many(self, host, name):
        path = Path(host.root) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        found = self.found(host, content=self.TEXT)
        assert found["gateway.extra_files"]["evidence"] == [str(path)]

    def test_not_asked_for(self, host):
        assert {one["result"] for one in file_findings(host, None)} == {"skip"}

    def test_what_cannot_be_read_is_an_error(self, green):
        def refuse(path):
            raise PermissionError(13, "Permission denied")

        host = FakeHost(green)
        host.read = refuse
        found = findings(host, [{"path": SITE, "content": ""}])
        assert found["gateway.extra_files"]["result"] == "error"


class TestProc:
    def make(self, root, pid, line, *, parent=1, net="net:[1]", name="nginx", unit="nginx.service"):
        folder = root / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "cmdline").write_bytes(line)
        (folder / "comm").write_text(f"{name}\n")
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} " + "0 " * 17 + "4711 0\n")
        (folder / "cgroup").write_text(f"0::/system.slice/{unit}\n")
        (folder / "exe").symlink_to("/usr/sbin/nginx")
        (folder / "ns/net").symlink_to(net)

    @pytest.fixture
    def host(self, tmp_path):
        (tmp_path / "self/ns").mkdir(parents=True)
        (tmp_path / "self/ns/net").symlink_to("net:[1]")
        self.make(tmp_path, 1, b"/sbin/init\0", name="systemd", unit="init.scope")
        self.make(tmp_path, 10, DEBIANS.encode())
        self.make(tmp_path, 11, b"nginx: worker process\0\0\0", parent=10)
        return GatewayHost(lambda _command: (0, "", ""), "/usr/sbin/nginx", proc=tmp_path)

    def test_processes_are_told(self, host):
        master, worker = host.processes()
        assert master == process(start=4711, uid=os.getuid())
        assert (worker.is_worker, worker.parent) == (True, 10)

    def test_code_that_was_loaded(self, host):
        (host.proc / "10/maps").write_text(
            "55a0-55b0 r-xp 00000000 08:01 12 /usr/sbin/nginx\n"
            "55b0-55c0 rw-p 00000000 08:01 12 /srv/data\n"
            "7f00-7f10 r-xp 00000000 00:01 99 /memfd:x (deleted)\n"
            "7f10-7f20 r-xp 00000000 00:00 0\n7f20-7f30 r-xp 00000000 00:00 0 [vdso]\n"
        )
        assert host.code(10) == ["/memfd:x (deleted)", "/usr/sbin/nginx"]

    def test_another_file_in_its_place(self, host, tmp_path):
        path = tmp_path / "nginx.conf"
        path.write_text("")
        assert not host.sees_another(10, str(path))
        (host.proc / "10/root").symlink_to("/")
        assert not host.sees_another(10, str(path))
        (host.proc / "10/root").unlink()
        other = tmp_path / f"10/root{path}"
        other.parent.mkdir(parents=True)
        assert host.sees_another(10, str(path))
        other.write_text("")
        assert host.sees_another(10, str(path))
        assert not host.sees_another(10, "/not/there")

    def test_those_of_a_container_are_not(self, host):
        self.make(host.proc, 20, DEBIANS.encode(), net="net:[2]")
        self.make(host.proc, 21, DEBIANS.encode(), unit="docker-1.scope")
        assert [one.pid for one in host.processes()] == [10, 11, 21]

    def test_one_under_another_name_is_seen(self, host):
        self.make(host.proc, 30, b"nginx: master process /opt/x\0", name="x")
        self.make(host.proc, 31, b"nginx\0-g\0daemon off;\0")
        assert [one.title for one in host.processes()][2:] == [
            "nginx: master process /opt/x",
            "nginx -g daemon off;",
        ]

    def test_one_that_ends_is_left_out(self, host):
        (host.proc / "11/stat").write_text("")
        assert [one.pid for one in host.processes()] == [10]

    def test_addresses(self, host):
        (host.proc / "net").mkdir()
        (host.proc / "net/fib_trie").write_text(
            "Main:\n  +-- 192.0.2.0/24 2 0 2\n     |-- 192.0.2.0\n        /24 link UNICAST\n"
            "     |-- 192.0.2.7\n        /32 host LOCAL\n"
        )
        (host.proc / "net/if_inet6").write_text(
            "20010db8000000000000000000000001 02 40 00 80     eth0\n"
        )
        first, second = host.addresses()
        assert first == "192.0.2.7"
        expected = expected_from(options(), [first, second])
        assert expected.local("2001:db8::1")
        assert expected.local("192.0.2.7")


def test_a_changed_inode_counts_whatever_its_time(tmp_path):
    """Set back by touch(1), a file's own time tells nothing."""
    path = tmp_path / "x.conf"
    path.write_text("")
    os.utime(path, (0, 0))
    host = GatewayHost(lambda _command: (0, "", ""), "/usr/sbin/nginx", root=str(tmp_path))
    start = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    ticks = os.sysconf("SC_CLK_TCK")
    before = process(pid=1, start=start - 100 * ticks)
    after = process(pid=2, start=start + 100 * ticks)
    from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import Worker

    assert host.stale({Worker(before.pid, before.start)}, str(path))
    assert not host.stale({Worker(after.pid, after.start)}, str(path))


def test_this_machines_addresses_are_found():
    host = GatewayHost(lambda _command: (0, "", ""), None)
    assert "127.0.0.1" in host.addresses()


def test_files_are_read_byte_for_byte(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"a\r\n\xff")
    host = GatewayHost(lambda _command: (0, "", ""), None)
    shown = subprocess.run(["cat", path], capture_output=True, check=True).stdout
    assert host.read(str(path)).encode(errors="surrogateescape") == shown
