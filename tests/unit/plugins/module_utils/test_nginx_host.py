# SPDX-License-Identifier: GPL-3.0-or-later
"""The real host's half, on a scratch tree and a made-up /proc."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import (
    ABSENT,
    Entry,
    NginxConfigError,
    Worker,
    temporary_path,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_host import (
    SystemHost,
    parse_process,
)
from hypothesis import given
from hypothesis import strategies as st

MINE = {"uid": os.getuid(), "gid": os.getgid()}


class Commands:
    """Answers commands from a table by their first words after the program."""

    def __init__(self, answers: dict[str, tuple[int, str, str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, command: t.Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(" ".join(command))
        return next(
            (answer for words, answer in self.answers.items() if words in self.asked[-1]),
            (0, "", ""),
        )


def running(pid: int = 7) -> dict[str, tuple[int, str, str]]:
    return {"systemctl show": (0, f"ActiveState=active\nMainPID={pid}\n", "")}


@pytest.fixture
def host(tmp_path: Path) -> SystemHost:
    root = tmp_path / "nginx"
    (root / "conf.d").mkdir(parents=True)
    return SystemHost(
        run=Commands(running()),
        binary="/usr/sbin/nginx",
        root=str(root),
        proc=tmp_path / "proc",
        error_log=str(tmp_path / "error.log"),
    )


class TestFiles:
    @pytest.mark.parametrize(
        "entry",
        [
            Entry("file", content=b"x\0\xff\n", mode=0o640, **MINE),
            Entry("file", content=b"", mode=0o600, **MINE),
            Entry("link", target="../nowhere"),
            Entry("directory", mode=0o750, **MINE),
        ],
    )
    def test_what_is_put_is_read_back(self, host: SystemHost, entry: Entry) -> None:
        path = f"{host.root}/conf.d/x"
        host.put(path, entry)
        assert host.entry(path) == entry
        host.put(path, ABSENT)
        assert host.entry(path) == ABSENT
        assert os.listdir(f"{host.root}/conf.d") == []

    def test_putting_the_old_entry_back_restores_the_time_too(self, host: SystemHost) -> None:
        path = f"{host.root}/conf.d/x"
        Path(path).write_text("old")
        os.utime(path, (1000, 1000))
        before = host.entry(path)
        host.put(path, Entry("link", target="/t"))
        host.put(path, before)
        assert (Path(path).read_text(), os.lstat(path).st_mtime) == ("old", 1000)
        assert stat.S_IMODE(os.lstat(path).st_mode) == before.mode

    def test_a_reader_sees_the_old_or_the_new_file_never_half(self, host: SystemHost) -> None:
        path = f"{host.root}/conf.d/x"
        host.put(path, Entry("file", content=b"old", mode=0o640, **MINE))
        with open(path) as reader:
            host.put(path, Entry("file", content=b"new", mode=0o640, **MINE))
            assert (reader.read(), Path(path).read_text()) == ("old", "new")

    def test_a_link_planted_at_the_temporary_name_is_not_followed(
        self, host: SystemHost, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_text("untouched")
        path = f"{host.root}/conf.d/x"
        os.symlink(victim, temporary_path(path))
        host.put(path, Entry("file", content=b"new", mode=0o640, **MINE))
        assert (victim.read_text(), Path(path).read_text()) == ("untouched", "new")

    def test_a_directory_that_is_a_link_out_of_the_tree_is_refused(
        self, host: SystemHost, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        os.symlink(outside, f"{host.root}/out")
        for act in (host.entry, lambda path: host.put(path, ABSENT)):
            with pytest.raises(NginxConfigError, match=r"out/x leads to .*/outside"):
                act(f"{host.root}/out/x")

    def test_everything_below_a_directory_is_listed_without_following_links(
        self, host: SystemHost, tmp_path: Path
    ) -> None:
        (tmp_path / "outside" / "deep").mkdir(parents=True)
        os.symlink(tmp_path / "outside", f"{host.root}/conf.d/link")
        Path(f"{host.root}/conf.d/file").write_text("x")
        assert sorted(map(os.path.basename, host.inside(host.root))) == ["conf.d", "file", "link"]
        assert host.inside(f"{host.root}/conf.d/link") == []

    def test_special_files_are_known_as_such(self, host: SystemHost) -> None:
        os.mkfifo(f"{host.root}/pipe")
        assert host.entry(f"{host.root}/pipe").kind == "other"

    def test_a_directorys_time_comes_back(self, host: SystemHost) -> None:
        folder = f"{host.root}/conf.d"
        os.utime(folder, (1000, 1000))
        restore = host.keep_times({folder, f"{host.root}/missing"})
        host.put(f"{folder}/x", Entry("file", mode=0o640, **MINE))
        restore()
        assert host.changed_at(folder, inode=False) == 1000

    def test_an_old_file_moved_into_place_counts_as_changed_now(self, host: SystemHost) -> None:
        path = f"{host.root}/c.crt"
        Path(path).write_text("x")
        os.utime(path, (1000, 1000))
        assert host.changed_at(path, inode=False) == 1000
        assert abs(t.cast("float", host.changed_at(path, inode=True)) - time.time()) < 60
        assert host.changed_at(f"{path}.missing", inode=True) is None

    def test_a_second_run_is_kept_out(self, host: SystemHost) -> None:
        with host.lock(), pytest.raises(NginxConfigError, match="another run"), host.lock():
            pass
        with host.lock():
            pass  # free again


class TestWorkers:
    def process(self, host: SystemHost, pid: int, parent: int, title: str, start: int = 5) -> None:
        folder = host.proc / str(pid)
        folder.mkdir(parents=True)
        zeros = " ".join(["0"] * 17)
        (folder / "stat").write_text(f"{pid} (a ) b) S {parent} {zeros} {start} 0 0\n")
        (folder / "cmdline").write_bytes(title.encode() + b"\0\0\0")

    def test_only_the_masters_workers_in_service(self, host: SystemHost) -> None:
        self.process(host, 7, 1, "nginx: master process /usr/sbin/nginx")
        self.process(host, 8, 7, "nginx: worker process", 50)
        self.process(host, 9, 7, "nginx: worker process is shutting down")
        self.process(host, 10, 7, "nginx: cache manager process")
        self.process(host, 11, 99, "nginx: worker process")  # in a container
        (host.proc / "12").mkdir()  # ended while we looked
        assert host.workers() == {Worker(8, 50)}

    def test_a_stopped_service_has_none(self, host: SystemHost) -> None:
        self.process(host, 8, 0, "nginx: worker process")
        host.run = Commands({"systemctl show": (0, "ActiveState=inactive\nMainPID=0\n", "")})
        assert (host.running(), host.workers()) == (False, set())

    def test_without_systemd_nothing_runs_and_nothing_can_be_started(
        self, host: SystemHost
    ) -> None:
        host.systemctl = None
        assert not host.running()
        with pytest.raises(NginxConfigError, match=r"nothing can start nginx\.service"):
            host.start()

    def test_an_unknown_state_is_an_error_and_not_stopped(self, host: SystemHost) -> None:
        host.run = Commands({"systemctl show": (1, "", "Failed to connect to bus\n")})
        with pytest.raises(NginxConfigError, match=r"unknown: Failed to connect to bus"):
            host.running()

    def test_start_time_agrees_with_the_clock(self, host: SystemHost) -> None:
        before = time.time()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            parent, start = parse_process(Path(f"/proc/{child.pid}/stat").read_text())
            child.communicate(b"\n")
        assert parent == os.getpid()
        assert before - 0.02 <= host.started(Worker(child.pid, start)) <= time.time()

    @given(st.text(st.characters(codec="latin-1"), max_size=15))
    def test_no_program_name_shifts_the_fields(self, name: str) -> None:
        rest = " ".join(str(number) for number in range(3, 30))
        assert parse_process(f"12 ({name}) S {rest.removeprefix('3 ')}\n") == (4, 22)


class TestService:
    def test_reload_tells_only_the_masters_new_emerg_lines(self, host: SystemHost) -> None:
        log = Path(host.error_log)
        log.write_text("2026 [emerg] 7#7: old\n")
        gained = host.reload()
        with log.open("a") as file:
            file.write(
                "2026 [emerg] 8#8: a test by hand\n2026 [warn] 7#7: no\n2026 [emerg] 7#7: x\n"
            )
        assert gained() == ["2026 [emerg] 7#7: x"]
        log.rename(f"{log}.1")
        assert gained() == []
        log.write_text("2026 [emerg] 7#7: rotated\n")
        assert gained() == ["2026 [emerg] 7#7: rotated"]

    def test_a_failed_start_is_told_by_the_journal_each_line_once(self, host: SystemHost) -> None:
        said = "Starting…\nnginx: [emerg] bind() failed\nnginx: [emerg] bind() failed\n"
        host.run = Commands(
            {"systemctl start": (1, "", "Job failed."), "journalctl": (0, said, "")}
        )
        with pytest.raises(NginxConfigError) as caught:
            host.start()
        assert str(caught.value) == "nginx.service does not start: nginx: [emerg] bind() failed"

    def test_a_failed_start_with_a_silent_journal_still_says_something(
        self, host: SystemHost
    ) -> None:
        host.run = Commands({"systemctl start": (1, "", "Unit is masked.\n")})
        with pytest.raises(NginxConfigError, match=r"Unit is masked\."):
            host.start()

    @pytest.mark.parametrize(
        ("answer", "refusal"),
        [
            ((0, "", "nginx: test is successful"), None),
            ((1, "", "nginx: [emerg] a\nnginx: failed\n"), "nginx: [emerg] a; nginx: failed"),
            ((139, "", ""), "nginx -t ended with code 139"),
        ],
    )
    def test_nginx_decides(
        self, host: SystemHost, answer: tuple[int, str, str], refusal: str | None
    ) -> None:
        host.run = Commands({"/usr/sbin/nginx -t": answer})
        assert host.refusal() == refusal
