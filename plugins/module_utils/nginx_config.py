# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change nginx's files so that either the running workers serve the new ones, or nothing changed.

plan() is a pure function of current and wished state; changed, diff and check mode come from it.
converge() carries a plan out on a Host, which is the real one (nginx_host.py) or the tests' twin.

nginx itself is the judge, in two steps, since `nginx -t` is not enough: a changed key of a
limit_req_zone, or a port that somebody else holds, passes it, and then the reload fails silently
while the old workers go on.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import typing as t
from dataclasses import dataclass, field

__all__ = (
    "ABSENT",
    "Entry",
    "Host",
    "NginxConfigError",
    "Operation",
    "Outcome",
    "Wish",
    "Worker",
    "converge",
    "diff_of",
    "parse_wishes",
    "plan",
    "redact",
)

ROOT = "/etc/nginx"
TEMPORARY_SUFFIX = ".llm-hardening.tmp"

# A worker's start is known in clock ticks (10 ms, rounded down) and file times in jiffies (up to
# 10 ms, rounded down too); without this slack a normal run would ask for one more reload.
CLOCK_SLACK = 0.05
POLL_SECONDS = 0.1


class NginxConfigError(ValueError):
    """The wish is wrong, or nginx did not take it; the message says which file and why."""


@dataclass(frozen=True)
class Entry:
    """What is at a path. kind: absent, file, link, directory, or other (device, socket, …)."""

    kind: str
    content: bytes = b""
    target: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    # nanoseconds; restored with the file, never compared
    modified: int | None = field(default=None, compare=False)


ABSENT = Entry("absent")


@dataclass(frozen=True)
class Wish:
    """One path and what is to be there; purge owns all that is inside a directory."""

    path: str
    entry: Entry
    sensitive: bool = False
    purge: bool = False


@dataclass(frozen=True)
class Operation:
    """One step; exchanging before and after undoes it."""

    path: str
    before: Entry
    after: Entry
    sensitive: bool = False


@dataclass(frozen=True)
class Worker:
    """A worker process; pid and start together never occur twice. start in ticks since boot."""

    pid: int
    start: int


@dataclass(frozen=True)
class Outcome:
    """What a run did, or would do in check mode."""

    operations: list[Operation]
    reload: bool
    start: bool

    @property
    def changed(self) -> bool:
        return bool(self.operations) or self.reload or self.start


class Host(t.Protocol):
    """What converge() needs from a host. Times are Unix times in seconds."""

    def entry(self, path: str) -> Entry: ...
    def inside(self, directory: str) -> list[str]: ...
    def put(self, path: str, entry: Entry) -> None: ...
    def keep_times(self, paths: t.Iterable[str]) -> t.Callable[[], None]: ...
    def lock(self) -> contextlib.AbstractContextManager[t.Any]: ...
    def installed(self) -> bool: ...
    def refusal(self) -> str | None: ...
    def running(self) -> bool: ...
    def workers(self) -> set[Worker]: ...
    def started(self, worker: Worker) -> float: ...
    def changed_at(self, path: str, *, inode: bool) -> float | None: ...
    def reload(self) -> t.Callable[[], list[str]]: ...
    def start(self) -> None: ...
    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


def _checked_path(path: str, root: str) -> str:
    if path != posixpath.normpath(path) or not path.startswith(root + "/"):
        raise NginxConfigError(f"{path!r} is not a plain absolute path below {root}")
    return path


def _mode(value: str, path: str) -> int:
    # 0640 without quotes reaches us as the decimal 416, which would be valid octal as well
    if not re.fullmatch(r"0[0-7]{3}", value):
        raise NginxConfigError(f"mode {value!r} of {path} is not a quoted octal such as '0640'")
    return int(value, 8)


def _file_entry(item: t.Mapping[str, t.Any]) -> Entry:
    """Return the entry wished by one item of the module's files option."""
    path, content, link = item["path"], item.get("content"), item.get("link")
    if item["state"] == "absent":
        if content is not None or link is not None:
            raise NginxConfigError(f"{path} has state absent, and content or link as well")
        return ABSENT
    if (content is None) == (link is None):
        raise NginxConfigError(f"{path} needs either content or link")
    if link is not None:
        return Entry("link", target=link)
    return Entry("file", content=content.encode(), mode=_mode(item["mode"], path))


def _directory_entry(item: t.Mapping[str, t.Any]) -> Entry:
    if item["state"] == "absent":
        return ABSENT
    return Entry("directory", mode=_mode(item["mode"], item["path"]))


def parse_wishes(
    files: t.Sequence[t.Mapping[str, t.Any]],
    directories: t.Sequence[t.Mapping[str, t.Any]],
    root: str = ROOT,
) -> list[Wish]:
    """Return the module's files and directories as wishes, or raise NginxConfigError."""
    wishes = [
        Wish(_checked_path(item["path"], root), _file_entry(item), bool(item.get("sensitive")))
        for item in files
    ]
    wishes += [
        Wish(
            _checked_path(item["path"], root), _directory_entry(item), purge=bool(item.get("purge"))
        )
        for item in directories
    ]
    seen: set[str] = set()
    for wish in wishes:
        if wish.path in seen:
            raise NginxConfigError(f"{wish.path} is listed twice")
        seen.add(wish.path)
    return wishes


def temporary_path(path: str) -> str:
    """Return the name a file has while it is written: hidden, and no include of nginx matches it.

    Always the same one, so that the next run finds what a killed one left behind.
    """
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name}{TEMPORARY_SUFFIX}")


def expand(host: Host, wishes: t.Sequence[Wish]) -> list[Wish]:
    """Add what follows from the wishes: unlisted content of purged directories, leftovers."""
    listed = {wish.path for wish in wishes}
    extra = [
        Wish(path, ABSENT, sensitive=True)
        for wish in wishes
        if wish.purge
        for path in host.inside(wish.path)
        if path not in listed
    ]
    known = listed | {wish.path for wish in extra}
    extra += [
        Wish(leftover, ABSENT, sensitive=True)
        for leftover in (temporary_path(wish.path) for wish in wishes)
        if leftover not in known
    ]
    return [*wishes, *extra]


def _check_removals(host: Host, operations: t.Sequence[Operation]) -> None:
    """Refuse to remove a directory that holds what nobody listed, before anything is changed."""
    removed = {step.path for step in operations if step.after.kind == "absent"}
    for step in operations:
        if step.after.kind == "absent" and step.before.kind == "directory":
            foreign = sorted(set(host.inside(step.path)) - removed)
            if foreign:
                raise NginxConfigError(f"{step.path} stays, it holds {', '.join(foreign)}")


def _order(operation: Operation) -> tuple[int, int, str]:
    """Directories first and shallow ones before deep ones; removals the other way round, last."""
    depth = operation.path.count("/")
    if operation.after.kind == "directory":
        return (0, depth, operation.path)
    if operation.after.kind != "absent":
        return (1, 0, operation.path)
    return (3, -depth, operation.path) if operation.before.kind == "directory" else (2, 0, "")


def _check_kinds(wish: Wish, before: Entry) -> None:
    """Refuse to turn a directory into a file, or to touch what is neither file nor link."""
    fits = before.kind in ("absent", wish.entry.kind) or (
        wish.entry.kind in ("file", "link", "absent") and before.kind in ("file", "link")
    )
    if not fits and not (wish.entry.kind == "absent" and before.kind == "directory"):
        found = "a special file" if before.kind == "other" else f"a {before.kind}"
        raise NginxConfigError(
            f"{wish.path} is {found} and stays: wanted there is {wish.entry.kind}"
        )


def plan(current: t.Mapping[str, Entry], wishes: t.Sequence[Wish]) -> list[Operation]:
    """Return the steps from the current entries (by path; missing = absent) to the wished ones."""
    operations = []
    for wish in wishes:
        before = current.get(wish.path, ABSENT)
        _check_kinds(wish, before)
        if before != wish.entry:
            operations.append(Operation(wish.path, before, wish.entry, wish.sensitive))
    return sorted(operations, key=_order)


def _lines(entry: Entry) -> str:
    if entry.kind == "file":
        return entry.content.decode(errors="replace")
    return f"link to {entry.target}\n" if entry.kind == "link" else ""


def _facts(entry: Entry) -> str:
    if entry.kind in ("absent", "link"):
        return f"{entry.kind}\n"
    return f"{entry.kind}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}\n"


def diff_of(operations: t.Sequence[Operation]) -> list[dict[str, str]]:
    """Return Ansible's diff entries; of a sensitive file only that it differs."""
    entries = []
    for step in operations:
        before, after = _lines(step.before), _lines(step.after)
        hidden = step.sensitive and before != after
        if before == after or hidden:
            before, after = _facts(step.before), _facts(step.after)
        if hidden:
            before += "(sensitive content)\n" if step.before.content else ""
            after += "(other sensitive content)\n" if step.after.content else ""
        headers = {"before_header": step.path, "after_header": step.path}
        entries.append({**headers, "before": before, "after": after})
    return entries


def redact(message: str, secrets: t.Iterable[str]) -> str:
    """Return nginx's message without words of sensitive files, which it likes to quote."""
    words = {word for text in secrets for word in re.findall(r"[^\s\"';{}=]{8,}", text)}
    for word in sorted(words, key=len, reverse=True):
        message = message.replace(word, "********")
    return message


def _changes(host: Host, wishes: t.Sequence[Wish], watch: t.Sequence[str]) -> list[float]:
    """Return when the files behind the wishes were last changed.

    Of our own files the modification time counts, which a rollback restores; of watched ones the
    inode change too, since certificates are often moved into place with their old times. The only
    trace of a removed file is its directory.
    """
    times = []
    for wish in wishes:
        gone = wish.entry.kind == "absent"
        path = posixpath.dirname(wish.path) if gone else wish.path
        times.append(host.changed_at(path, inode=False))
    times += [host.changed_at(path, inode=True) for path in watch]
    return [when for when in times if when is not None]


def is_stale(host: Host, wishes: t.Sequence[Wish], watch: t.Sequence[str]) -> bool:
    """Say whether the workers are older than a file they should serve (a killed run, a renewal).

    The oldest worker counts: one that replaced a crashed one has the master's old configuration.
    Times in the future tell nothing (the clock was set back) and would ask for a reload every run.
    """
    starts = [host.started(worker) for worker in host.workers()]
    if not starts:
        return True
    now = host.now()
    return any(min(starts) + CLOCK_SLACK < when <= now for when in _changes(host, wishes, watch))


def _await_new_workers(
    host: Host, old: set[Worker], gained: t.Callable[[], list[str]], timeout: float
) -> None:
    """Return when all workers in service are new ones, else raise with the [emerg] lines.

    On a failed reload nginx keeps the old workers; on a good one they stop serving (their title
    says so) within about 0.1 s. A bind() is tried five times over 2.5 s: one try decides nothing.
    """
    for _poll in range(int(timeout / POLL_SECONDS)):
        workers = host.workers()
        if workers and not workers & old:
            return
        if any("bind() to" not in line for line in gained()):
            break
        host.sleep(POLL_SECONDS)
    # the tries of one bind() differ in their time alone
    lines = {line.partition(": ")[2]: line for line in gained()}
    reason = "; ".join(lines.values()) or "no [emerg] line in the error log says why"
    raise NginxConfigError(f"no nginx worker serves the new configuration: {reason}")


def _bring_into_service(host: Host, outcome: Outcome, timeout: float) -> None:
    if outcome.start:
        host.start()
        _await_new_workers(host, set(), list, timeout)
    elif outcome.reload:
        old = host.workers()
        _await_new_workers(host, old, host.reload(), timeout)


def _undo(host: Host, done: t.Sequence[Operation]) -> str:
    """Put back what was there, as far as possible; return what could not be, as a sentence."""
    failed = []
    for step in reversed(done):
        try:
            host.put(step.path, step.before)
        except OSError as exc:
            failed.append(f"{step.path} ({exc.strerror})")
    return f" Could not be put back: {', '.join(failed)}." if failed else ""


def _blame(host: Host, stage: str, done: t.Sequence[Operation]) -> str:
    """Return what stands behind nginx's own words: whose fault it is, what is on disk now."""
    if not done:
        return "; no file was changed."
    if stage == "test" and host.refusal() is not None:
        # the old files are back and it still refuses; so no test is needed before every change
        return "; it does so without this change as well, which was therefore not made."
    return "; the old files are back."


def _carry_out(host: Host, outcome: Outcome, timeout: float) -> None:
    """Do what the outcome says, or raise NginxConfigError with everything as it was."""
    done: list[Operation] = []
    restore_times = host.keep_times({posixpath.dirname(op.path) for op in outcome.operations})
    stage = "write"
    try:
        for step in outcome.operations:
            done.append(step)
            host.put(step.path, step.after)
        stage = "test"
        refusal = host.refusal() if host.installed() else None
        if refusal is not None:
            raise NginxConfigError(f"nginx refuses the configuration: {refusal}")
        stage = "service"
        _bring_into_service(host, outcome, timeout)
    except BaseException as exc:
        lost = _undo(host, done)
        restore_times()
        if not isinstance(exc, (NginxConfigError, OSError)):
            raise
        message = f"{exc}{_blame(host, stage, done)}{lost}"
        if stage == "service" and outcome.reload and done:
            message += _reload_back(host, timeout)
        raise NginxConfigError(message) from exc


def _reload_back(host: Host, timeout: float) -> str:
    """Make sure that the restored files are served, whatever became of the reload that failed."""
    try:
        _await_new_workers(host, host.workers(), host.reload(), timeout)
    except NginxConfigError as exc:
        return f" With them: {exc}."
    return ""


def _foresee(host: Host, wishes: t.Sequence[Wish], watch: t.Sequence[str]) -> Outcome:
    """Compare the host with the wishes; nothing is changed here."""
    everything = expand(host, wishes)
    operations = plan({wish.path: host.entry(wish.path) for wish in everything}, everything)
    _check_removals(host, operations)
    running = host.running()
    serves = any(wish.entry.kind in ("file", "link") for wish in wishes)
    return Outcome(
        operations=operations,
        reload=running and (bool(operations) or is_stale(host, wishes, watch)),
        start=serves and not running,
    )


def converge(
    host: Host,
    wishes: t.Sequence[Wish],
    watch: t.Sequence[str] = (),
    timeout: float = 10,
    check: bool = False,
) -> Outcome:
    """Bring files and running nginx to the wished state and return what that took.

    nginx is started only for files to serve, never for removals or watched paths alone. Raises
    NginxConfigError; then files, links, modes and times are those from before.
    """
    if check:
        return _foresee(host, wishes, watch)
    with host.lock():
        outcome = _foresee(host, wishes, watch)
        if outcome.start and not host.installed():
            raise NginxConfigError("nginx is not installed, so its configuration was not written")
        if outcome.changed:
            _carry_out(host, outcome, timeout)
    return outcome
