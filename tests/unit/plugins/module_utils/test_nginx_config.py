# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import itertools
import posixpath
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import nginx_config
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import (
    ABSENT,
    Entry,
    NginxConfigError,
    Wish,
    Worker,
    converge,
    diff_of,
    parse_wishes,
    plan,
    redact,
    temporary_path,
)
from hypothesis import given
from hypothesis import strategies as st

CONF = "/etc/nginx/conf.d/gw.conf"
SITE = "/etc/nginx/sites-enabled/default"
HZ = 100


def text(content: str, mode: int = 0o640) -> Entry:
    return Entry("file", content=content.encode(), mode=mode)


class FakeHost:
    """The in-memory twin: a tree, a clock, and an nginx that reads the tree as the real one does.

    A file with REFUSED in it fails nginx -t; one with UNSERVED passes it and fails the reload.
    """

    def __init__(self, tree: dict[str, Entry] | None = None, *, runs: bool = True) -> None:
        self.clock = 1000.0
        self.tree = dict(tree or {})
        self.times = dict.fromkeys(self.tree, self.clock - 100)
        self.has_nginx = True
        self.reloads = 0
        self.tests = 0
        self.puts = 0
        self.break_at_put: BaseException | None = None
        self.break_after = 0
        self.starts_well = True
        self.emerg = ["2026/01/01 00:00:00 [emerg] 7#7: limit_req uses another key"]
        self.pids = itertools.count(100)
        self.in_service: set[Worker] = set()
        self.served: dict[str, Entry] = {}
        if runs:
            self._fork()

    def _fork(self) -> None:
        self.in_service = {Worker(next(self.pids), int(self.clock * HZ)) for _worker in range(2)}
        self.served = dict(self.tree)

    def _holds(self, word: bytes) -> bool:
        return any(word in entry.content for entry in self.tree.values())

    def entry(self, path: str) -> Entry:
        return self.tree.get(path, ABSENT)

    def inside(self, directory: str) -> list[str]:
        return [path for path in self.tree if path.startswith(directory + "/")]

    def put(self, path: str, entry: Entry) -> None:
        self.puts += 1
        # only while the change is made: what an undo cannot write is another test's matter
        if self.break_at_put is not None and self.puts == self.break_after and not self.tests:
            raise self.break_at_put
        if entry.kind == "absent":
            if self.inside(path):
                raise OSError(39, "Directory not empty")
            self.tree.pop(path, None)
        else:
            self.tree[path] = entry
        self.times[path] = self.clock
        self.times[posixpath.dirname(path)] = self.clock

    def keep_times(self, paths: t.Iterable[str]) -> t.Callable[[], None]:
        before = dict(self.times)
        return lambda: self.times.update(before)

    @contextlib.contextmanager
    def lock(self) -> t.Iterator[None]:
        yield

    def installed(self) -> bool:
        return self.has_nginx

    def refusal(self) -> str | None:
        self.tests += 1
        self.clock += 0.05
        return "nginx: [emerg] unknown directive" if self._holds(b"REFUSED") else None

    def running(self) -> bool:
        return bool(self.in_service)

    def workers(self) -> set[Worker]:
        return set(self.in_service)

    def started(self, worker: Worker) -> float:
        return worker.start / HZ

    def changed_at(self, path: str, *, inode: bool) -> float | None:
        return self.times.get(path)

    def reload(self) -> t.Callable[[], list[str]]:
        self.reloads += 1
        self.clock += 0.05
        if self._holds(b"UNSERVED"):
            return lambda: self.emerg
        self._fork()
        return list

    def start(self) -> None:
        if not self.starts_well:
            raise NginxConfigError("nginx.service does not start: bind() failed")
        self._fork()

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


class TestWishes:
    def wish(self, **item: t.Any) -> list[Wish]:
        defaults = {"path": CONF, "state": "present", "mode": "0640", "content": "x"}
        return parse_wishes([{**defaults, **item}], [])

    @pytest.mark.parametrize(
        "path",
        [
            "/etc/passwd",
            "/etc/nginx",
            "/etc/nginx/",
            "/etc/nginx/../passwd",
            "/etc/nginx/conf.d/../../shadow",
            "/etc/nginx-other/x.conf",
            "/etc/nginx//x.conf",
            "conf.d/x.conf",
            "//etc/nginx/x.conf",
            "",
        ],
    )
    def test_only_plain_paths_below_etc_nginx(self, path: str) -> None:
        with pytest.raises(NginxConfigError, match="not a plain absolute path below /etc/nginx"):
            self.wish(path=path)

    @given(st.text(alphabet="./abc", min_size=1))
    def test_no_spelling_leads_out_of_the_tree(self, tail: str) -> None:
        path = f"/etc/nginx/{tail}"
        with contextlib.suppress(NginxConfigError):
            (found,) = self.wish(path=path)
            assert ".." not in found.path.split("/") and found.path != "/etc/nginx"

    def test_an_unquoted_mode_is_refused(self) -> None:
        with pytest.raises(NginxConfigError, match=r"mode '416' of .*gw.conf is not a quoted"):
            self.wish(mode="416")

    @pytest.mark.parametrize(
        "item",
        [
            {"content": None},
            {"link": "/x"},
            {"state": "absent"},
            {"state": "absent", "content": None, "link": "/x"},
        ],
    )
    def test_content_and_link_exclude_each_other_and_absence(self, item: dict[str, t.Any]) -> None:
        with pytest.raises(NginxConfigError, match=r"gw\.conf"):
            self.wish(**item)

    def test_a_path_listed_twice_is_refused(self) -> None:
        one = {"path": CONF, "state": "present", "mode": "0640", "content": "x"}
        with pytest.raises(NginxConfigError, match="listed twice"):
            parse_wishes([one], [{"path": CONF, "state": "present", "mode": "0750"}])


class TestPlan:
    def test_what_is_as_wished_needs_no_step(self) -> None:
        assert plan({CONF: text("x")}, [Wish(CONF, text("x")), Wish(SITE, ABSENT)]) == []

    @pytest.mark.parametrize(
        "before",
        [
            text("y"),
            text("x", 0o644),
            replace(text("x"), uid=1),
            replace(text("x"), gid=1),
            Entry("link", target="/x"),
            ABSENT,
        ],
    )
    def test_content_mode_owner_and_kind_each_count(self, before: Entry) -> None:
        (step,) = plan({CONF: before}, [Wish(CONF, text("x"))])
        assert (step.before, step.after) == (before, text("x"))

    def test_the_time_does_not_count(self) -> None:
        assert plan({CONF: replace(text("x"), modified=5)}, [Wish(CONF, text("x"))]) == []

    def test_directories_come_before_their_files_and_go_after_them(self) -> None:
        folder = Entry("directory", mode=0o750)
        made = [Wish("/n/a/f", text("x")), Wish("/n/a", folder), Wish("/n", folder)]
        paths = [step.path for step in plan({}, made)]
        assert paths == ["/n", "/n/a", "/n/a/f"]
        gone = [replace(wish, entry=ABSENT) for wish in made]
        current = {wish.path: wish.entry for wish in made}
        assert [step.path for step in plan(current, gone)] == ["/n/a/f", "/n/a", "/n"]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (Entry("directory"), text("x")),
            (text("x"), Entry("directory")),
            (Entry("link", target="/t"), Entry("directory")),
            (Entry("other"), text("x")),
            (Entry("other"), ABSENT),
        ],
    )
    def test_other_kinds_are_left_alone(self, before: Entry, after: Entry) -> None:
        with pytest.raises(NginxConfigError, match=r"gw\.conf is a"):
            plan({CONF: before}, [Wish(CONF, after)])


class TestDiff:
    def test_shows_content(self) -> None:
        (entry,) = diff_of(plan({CONF: text("old\n")}, [Wish(CONF, text("new\n"))]))
        assert (entry["before"], entry["after"]) == ("old\n", "new\n")

    def test_shows_the_mode_when_only_that_differs(self) -> None:
        (entry,) = diff_of(plan({CONF: text("x", 0o644)}, [Wish(CONF, text("x"))]))
        assert ("0644" in entry["before"], "0640" in entry["after"]) == (True, True)

    @pytest.mark.parametrize("after", [text("new-secret"), ABSENT])
    def test_says_only_that_a_sensitive_file_differs(self, after: Entry) -> None:
        steps = plan({CONF: text("old-secret")}, [Wish(CONF, after, sensitive=True)])
        assert "secret" not in str(diff_of(steps))
        (entry,) = diff_of(steps)
        assert entry["before"] != entry["after"]


def test_redact_hides_what_nginx_quotes_of_a_secret() -> None:
    said = 'nginx: [emerg] invalid parameter "s3cr3t-token-value" in /etc/nginx/a.conf:3'
    shown = redact(said, ['set $x "s3cr3t-token-value";\n'])
    assert "s3cr3t" not in shown and "/etc/nginx/a.conf:3" in shown


WISH = [Wish(CONF, text("new")), Wish(SITE, ABSENT)]
BEFORE = {CONF: text("old", 0o600), SITE: Entry("link", target="/etc/nginx/sites-available/x")}


class TestConverge:
    def test_a_change_is_tested_then_served_and_the_second_run_does_nothing(self) -> None:
        host = FakeHost(BEFORE)
        outcome = converge(host, WISH)
        assert (outcome.changed, outcome.reload, outcome.start) == (True, True, False)
        assert host.served == {CONF: text("new")}
        host.clock += 100
        again = converge(host, WISH)
        assert (again.changed, host.reloads, host.tests) == (False, 1, 1)

    def test_check_mode_foretells_the_same_and_touches_nothing(self) -> None:
        host = FakeHost(BEFORE)
        foretold = converge(host, WISH, check=True)
        assert (host.tree, host.reloads, host.tests) == (BEFORE, 0, 0)
        assert foretold == converge(host, WISH)

    def test_a_refused_configuration_leaves_the_old_files_and_says_what_nginx_said(self) -> None:
        host = FakeHost(BEFORE)
        times = dict(host.times)
        with pytest.raises(NginxConfigError, match=r"unknown directive; the old files are back\."):
            converge(host, [Wish(CONF, text("REFUSED")), Wish(SITE, ABSENT)])
        assert (host.tree, host.served, host.reloads) == (BEFORE, BEFORE, 0)
        assert {path: host.times[path] for path in times} == times

    def test_a_tree_that_was_refused_before_is_not_blamed_on_the_change(self) -> None:
        tree = {**BEFORE, "/etc/nginx/conf.d/other.conf": text("REFUSED")}
        host = FakeHost(tree)
        with pytest.raises(NginxConfigError, match="without this change as well"):
            converge(host, WISH)
        assert host.tree == tree

    def test_a_reload_that_fails_silently_is_found_and_reverted(self) -> None:
        host = FakeHost(BEFORE)
        with pytest.raises(NginxConfigError) as caught:
            converge(host, [Wish(CONF, text("UNSERVED"))])
        assert "[emerg] 7#7: limit_req uses another key; the old files are back." in str(
            caught.value
        )
        assert (host.tree, host.served) == (BEFORE, BEFORE)
        assert host.reloads == 2  # the failed one and the one with the old files

    def test_without_any_word_in_the_log_it_waits_until_the_timeout(self) -> None:
        host = FakeHost(BEFORE)
        host.emerg = []
        start = host.clock
        with pytest.raises(NginxConfigError, match="no \\[emerg\\] line in the error log"):
            converge(host, [Wish(CONF, text("UNSERVED"))], timeout=3)
        assert 2.9 < host.clock - start < 4

    def test_one_failed_bind_is_no_verdict_yet(self) -> None:
        host = FakeHost(BEFORE)
        host.emerg = ["2026/01/01 00:00:00 [emerg] 7#7: bind() to 0.0.0.0:443 failed"]
        start = host.clock
        with pytest.raises(NginxConfigError, match=r"bind\(\) to 0.0.0.0:443 failed; the old"):
            converge(host, [Wish(CONF, text("UNSERVED"))], timeout=3)
        assert host.clock - start > 2.9

    def test_starts_an_nginx_that_does_not_run(self) -> None:
        host = FakeHost(runs=False)
        outcome = converge(host, WISH)
        assert (outcome.start, outcome.reload, host.served) == (True, False, {CONF: text("new")})

    def test_a_failed_start_puts_the_files_back(self) -> None:
        host = FakeHost(BEFORE, runs=False)
        host.starts_well = False
        with pytest.raises(NginxConfigError, match=r"does not start: bind\(\) failed; the old"):
            converge(host, WISH)
        assert host.tree == BEFORE

    def test_removal_alone_never_starts_nginx_and_works_without_it(self) -> None:
        host = FakeHost(BEFORE, runs=False)
        host.has_nginx = False
        outcome = converge(host, [Wish(CONF, ABSENT), Wish(SITE, ABSENT)])
        assert (outcome.changed, outcome.start, host.tree, host.tests) == (True, False, {}, 0)

    def test_files_are_not_written_where_nginx_is_missing(self) -> None:
        host = FakeHost(runs=False)
        host.has_nginx = False
        assert converge(host, WISH, check=True).changed
        with pytest.raises(NginxConfigError, match="nginx is not installed"):
            converge(host, WISH)
        assert host.tree == {}

    def test_files_newer_than_the_workers_are_reloaded_once(self) -> None:
        host = FakeHost(BEFORE)
        host.tree[CONF] = text("new")  # a killed run got this far
        host.times[CONF] = host.clock + 1
        host.clock += 5
        wish = [Wish(CONF, text("new"))]
        assert converge(host, wish, check=True).reload
        assert converge(host, wish).reload
        assert host.served[CONF] == text("new")
        assert not converge(host, wish).changed

    def test_a_removal_that_was_not_served_shows_in_the_directorys_time(self) -> None:
        host = FakeHost({})
        host.times[posixpath.dirname(SITE)] = host.clock + 1
        host.clock += 5
        assert converge(host, [Wish(SITE, ABSENT)]).reload
        assert not converge(host, [Wish(SITE, ABSENT)]).changed

    def test_a_renewed_certificate_is_reloaded_if_nginx_runs(self) -> None:
        host = FakeHost({})
        host.times["/etc/c.crt"] = host.clock + 1
        host.clock += 5
        outcome = converge(host, [], ["/etc/c.crt", "/etc/missing.crt"])
        assert (outcome.reload, host.reloads) == (True, 1)
        assert not converge(host, [], ["/etc/c.crt"]).changed
        stopped = FakeHost({}, runs=False)
        stopped.times["/etc/c.crt"] = stopped.clock
        assert not converge(stopped, [], ["/etc/c.crt"]).changed

    def test_a_time_in_the_future_does_not_reload_forever(self) -> None:
        host = FakeHost({})
        host.times["/etc/c.crt"] = host.clock + 1e6
        assert not converge(host, [], ["/etc/c.crt"]).changed

    def test_a_respawned_worker_hides_no_stale_configuration(self) -> None:
        host = FakeHost({})
        host.times["/etc/c.crt"] = host.clock + 1
        host.clock += 5
        host.in_service.add(Worker(999, int(host.clock * HZ)))
        assert converge(host, [], ["/etc/c.crt"]).reload

    def test_a_broken_certificate_is_refused_before_the_reload(self) -> None:
        host = FakeHost({CONF: text("REFUSED")})
        host.times["/etc/c.crt"] = host.clock + 1
        host.clock += 5
        with pytest.raises(NginxConfigError, match="no file was changed"):
            converge(host, [], ["/etc/c.crt"])
        assert host.reloads == 0

    def test_a_purged_directory_loses_what_nobody_listed_and_may_get_it_back(self) -> None:
        folder = "/etc/nginx/llm-gateway"
        tree = {folder: Entry("directory", mode=0o750), f"{folder}/old.conf": text("old")}
        host = FakeHost(tree)
        wishes = [Wish(folder, tree[folder], purge=True), Wish(f"{folder}/a", text("REFUSED"))]
        with pytest.raises(NginxConfigError):
            converge(host, wishes)
        assert host.tree == tree
        converge(host, [wishes[0], Wish(f"{folder}/a", text("a"))])
        assert set(host.tree) == {folder, f"{folder}/a"}
        converge(host, [Wish(folder, ABSENT, purge=True)])
        assert host.tree == {}

    def test_a_directory_with_foreign_files_is_not_removed(self) -> None:
        folder = "/etc/nginx/llm-gateway"
        tree = {folder: Entry("directory"), f"{folder}/mine": text("x"), CONF: text("y")}
        host = FakeHost(tree)
        with pytest.raises(NginxConfigError, match=r"llm-gateway stays, it holds .*/mine"):
            converge(host, [Wish(folder, ABSENT), Wish(CONF, ABSENT)])
        assert (host.tree, host.puts) == (tree, 0)

    def test_what_a_killed_run_left_half_written_is_removed(self) -> None:
        host = FakeHost({CONF: text("new"), temporary_path(CONF): text("ne")})
        assert converge(host, [Wish(CONF, text("new"))]).changed
        assert set(host.tree) == {CONF}

    def test_what_cannot_be_put_back_is_named(self) -> None:
        host = FakeHost(BEFORE)
        undo = host.put

        def full_disk(path: str, entry: Entry) -> None:
            if host.tests:
                raise OSError(28, "No space left on device")
            undo(path, entry)

        host.put = full_disk  # type: ignore[method-assign]
        with pytest.raises(NginxConfigError, match=r"Could not be put back: .*gw\.conf \(No space"):
            converge(host, [Wish(CONF, text("REFUSED"))])

    @given(
        before=st.dictionaries(
            st.sampled_from([CONF, SITE, "/etc/nginx/a", "/etc/nginx/b"]),
            st.sampled_from([text("one"), text("two", 0o600), Entry("link", target="/t")]),
        ),
        wished=st.dictionaries(
            st.sampled_from([CONF, SITE, "/etc/nginx/a", "/etc/nginx/b"]),
            st.sampled_from([ABSENT, text("one"), text("REFUSED"), text("UNSERVED")]),
        ),
        fails_at=st.integers(0, 6),
        how=st.sampled_from([OSError(28, "No space left on device"), KeyboardInterrupt()]),
        runs=st.booleans(),
    )
    def test_either_all_of_it_is_served_or_nothing_changed(
        self,
        before: dict[str, Entry],
        wished: dict[str, Entry],
        fails_at: int,
        how: BaseException,
        runs: bool,
    ) -> None:
        host = FakeHost(before, runs=runs)
        host.break_at_put, host.break_after = how, fails_at
        wishes = [Wish(path, entry) for path, entry in wished.items()]
        try:
            converge(host, wishes, timeout=1)
        except (NginxConfigError, KeyboardInterrupt):
            assert host.tree == before
            assert host.served == (before if runs else {})
        else:
            assert all(host.entry(path) == entry for path, entry in wished.items())
            assert not host.running() or host.served == host.tree


def test_public_names_exist() -> None:
    assert all(hasattr(nginx_config, name) for name in nginx_config.__all__)
