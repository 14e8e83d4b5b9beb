# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log on a host: is it kept, is it whole, and does it go on from where it was?

Pure: settings, facts, lines and what `llm-audit verify --json` says go in, findings come out. Seals
are not verified here: the first key stays on the control node.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import key_digest
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    FILE,
    FOLDER,
    Facts,
    differences,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.key_files import unix_time
from ansible_collections.llmsec.hardening.plugins.module_utils.plain_text_keys import keys_in
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_service import (
    Metrics,
    Service,
)

__all__ = (
    "CHAIN", "CONFIG", "CONTENT", "ENABLED", "FIELDS", "FILES", "OPEN", "PERMISSIONS", "REPORTS",
    "ROTATION", "SEALED", "SPACE", "Verdict", "chain_findings", "config_findings",
    "content_finding", "enabled_finding", "file_finding", "head_of", "open_finding",
    "parse_verdict", "permissions_finding", "reports_finding", "rotation_finding",
    "sealed_finding", "space_finding",
)  # fmt: skip

_LOG = "audit_log"
_HARDEN = "Run llmsec.hardening.harden."
_ASK = "Find out why (llm-audit verify, docs/audit-log.md), and verify a copy off the host."

ENABLED = Subject(
    "audit_log.enabled", _LOG, "requests are recorded", "high",
    "Set key_validator_audit_enabled: true and apply the role key_validator.",
)  # fmt: skip
CONFIG = Subject(
    "audit_log.config", _LOG, "the service takes its settings, and none of them logs requests",
    "high", _HARDEN,
)  # fmt: skip
_PROMPTS = Subject(
    "audit_log.prompt_digest", _LOG, "prompts are noted as digests that nobody can try out", "low",
    "Set key_validator_audit_prompt_digest: hmac-sha256.",
)  # fmt: skip
_REFUSALS = Subject(
    "audit_log.refusals", _LOG, "refusals are recorded, too", "medium",
    "Set key_validator_audit_refusals_per_second to more than 0.",
)  # fmt: skip
_FSYNC = Subject("audit_log.fsync", _LOG, "when a record counts as written", "info", "")
FILES = Subject("audit_log.file", _LOG, "the log is a file on this host's disk", "high", _HARDEN)
PERMISSIONS = Subject(
    "audit_log.permissions", _LOG, "only the service writes the log, only its group reads it",
    "high", _HARDEN,
)  # fmt: skip
OPEN = Subject(
    "audit_log.open", _LOG, "the service writes to the file that is at the log's path", "high",
    "Put the log back, then: systemctl restart llm-key-validator.",
)  # fmt: skip
CONTENT = Subject(
    "audit_log.content", _LOG, "no record holds a prompt or a key", "high",
    "Run llmsec.hardening.harden, and issue new keys for those that stand in the log.",
)  # fmt: skip
CHAIN = Subject("audit_log.chain", _LOG, "no record was changed or removed", "high", _ASK)
_BEGINNING = Subject(
    "audit_log.beginning", _LOG, "no file of the log is gone", "medium",
    "Bring the files back, or set key_validator_audit_keep_files where old ones may go.",
)  # fmt: skip
_ANCHOR = Subject(
    "audit_log.anchor", _LOG, "the log goes on from the head that was noted last", "high", _ASK
)
SEALED = Subject(
    "audit_log.sealed", _LOG, "the log is written and sealed", "high",
    "journalctl -u llm-key-validator says why. Without its seal key, run llmsec.hardening.harden.",
)  # fmt: skip
REPORTS = Subject(
    "audit_log.reports", _LOG, "nginx, and nobody else, tells how requests ended", "high", _HARDEN
)
SPACE = Subject(
    "audit_log.space", _LOG, "there is room for the log", "medium",
    "Free space or set key_validator_audit_keep_files: without room every request is refused.",
)  # fmt: skip
ROTATION = Subject(
    "audit_log.rotation", _LOG, "the service alone puts the log's files aside", "medium",
    "Take the log's folder out of logrotate and tmpfiles.d; key_validator_audit_max_file_bytes.",
)  # fmt: skip

# All that a record may hold: docs/audit-log.md.
FIELDS = frozenset(
    {
        "@timestamp", "event.sequence", "event.hash", "event.action", "event.outcome",
        "event.reason", "event.duration", "http.request.id", "http.request.method",
        "http.request.body.bytes", "http.response.status_code", "http.response.body.bytes",
        "url.path", "client.ip", "user.id", "user.hash", "tls.client.hash.sha256",
        "tls.client.subject", "gen_ai.provider.name", "gen_ai.operation.name",
        "gen_ai.request.model", "llm.prompt.hash", "llm.prompt.hash_algorithm",
        "llm.prompt.form", "llm.prompt.length", "llm.audit.version", "llm.audit.previous.file",
        "llm.audit.previous.sequence", "llm.audit.previous.hash",
        "llm.audit.removed", "llm.audit.key.id", "llm.audit.key.epoch", "llm.audit.key.stepped",
        "llm.audit.expected.key.id", "llm.audit.expected.key.epoch", "llm.audit.seal.epoch",
        "llm.audit.seal.count", "llm.audit.seal.head", "llm.audit.seal.mac", "llm.audit.count",
        "llm.audit.torn.bytes", "llm.audit.torn.sha256", "llm.audit.refused", "llm.audit.seconds",
    }
)  # fmt: skip
_HEX = re.compile(r"[0-9a-f]{64}")
# No setting of the service has such a name.
_DEBUG = re.compile(
    r"debug|trace|verbose|dump|log_(?:bod|request|prompt|header|key)", re.IGNORECASE
)
# Longer than any text in a record (llm_key_validator/audit/records.py)
_LONGEST = 1100
_SINKS = {"journald": "/run/systemd/journal/socket", "syslog": "/dev/log"}
# Programs that leave less of a file
_EMPTIES = re.compile(
    r"\b(?:rm|mv|truncate|shred|unlink|logrotate|tee|dd|install|sed +-\S*i|cp +/dev/null)\b"
    r"|-delete\b"
)
# What may come while a file is put aside
_OVERSHOOT = 1 << 22

Lines = Sequence[bytes]
Config = Mapping[str, t.Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `llm-audit verify --json` says. `findings`: (level, text with its place)."""

    verdict: str
    sequence: int = 0
    hash: str = ""
    files: int = 0
    records: int = 0
    findings: tuple[tuple[str, str], ...] = field(default_factory=tuple)

    def texts(self, level: str, *, anchor: bool) -> list[str]:
        """Return the findings of one level about the anchor, or about all the rest."""
        return [
            text for one, text in self.findings if one == level and ("anchor" in text) == anchor
        ]


def _number(config: Config, name: str, default: float) -> float:
    """Return a setting; what is no number the service refuses, which is another finding."""
    value = config.get(name, default)
    return value if isinstance(value, int | float) else default


def parse_verdict(status: int, output: str, errors: str) -> Verdict:
    """Return what llm-audit said. Raises ValueError when it said nothing that can be read."""
    try:
        said = json.loads(output)
        head = said["head"] or {}
        findings = tuple((str(one["level"]), _finding_text(one)) for one in said["findings"])
        verdict = Verdict(
            str(said["verdict"]), int(head.get("sequence", 0)), str(head.get("hash", "")),
            int(said["files"]), int(said["records"]), findings,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"llm-audit ended with {status}: {errors.strip()[:200]}") from None
    if status != {"whole": 0, "broken": 1}.get(verdict.verdict, 2):
        raise ValueError(f"llm-audit says {verdict.verdict} and ended with {status}")
    return verdict


def _finding_text(one: Mapping[str, t.Any]) -> str:
    where = ":".join(str(one[name]) for name in ("file", "line") if one.get(name))
    sequence = f"sequence {one['sequence']}" if one.get("sequence") is not None else ""
    return ": ".join(filter(None, [where, sequence, str(one["text"])]))


def enabled_finding(config: Config | None, path: str) -> Finding:
    """Return whether there is a service that records."""
    problems = []
    if config is None:
        problems.append(f"there is no key validator here ({path}): nothing is recorded")
    elif config.get("audit_enabled", True) is not True:
        problems.append("audit_enabled is off: nothing is recorded")
    return ENABLED.judged(problems, expected="on", found="on")


def config_findings(config: Config, folder: str, refused: str | Exception) -> Iterator[Finding]:
    """Yield what the settings say; `refused` is why the service would not take them, if so."""
    problems = [f"{name} is set" for name in config if _DEBUG.search(name)]
    if config.get("audit_directory", folder) != folder:
        problems.append(f"audit_directory is {config['audit_directory']}, not {folder}")
    if isinstance(refused, Exception):
        yield CONFIG.not_measured(refused)
    else:
        problems += [f"the service refuses them: {refused}"] if refused else []
        yield CONFIG.judged(problems, expected="its own settings only", found="it takes them")
    digest = config.get("audit_prompt_digest", "hmac-sha256")
    yield _PROMPTS.judged(
        [] if digest == "hmac-sha256" else [f"as {digest}: a short prompt can be guessed"],
        expected="hmac-sha256", found="hmac-sha256",
        severity="" if digest in ("hmac-sha256", "sha256") else "high",
    )  # fmt: skip
    most = config.get("audit_refusals_per_second", 100)
    yield _REFUSALS.judged(
        [] if most else ["none of them is"], expected="some each second", found=f"{most} a second"
    )
    on_disk = "once it is on the disk" if config.get("audit_fsync") else "once the kernel has it"
    yield _FSYNC.passed(on_disk)


def file_finding(path: str, facts: Facts | None, above: Iterable[Facts]) -> Finding:
    """Return whether the log, and each folder above, is what it should be, not a link elsewhere."""
    problems = []
    if facts is None:
        problems.append(f"{path} is not there")
    elif facts.kind != FILE:
        arrow = f" to {facts.target}" if facts.target else ""
        problems.append(f"{path} is {facts.kind}{arrow}")
    problems += [
        f"{one.path} is {one.kind} to {one.target}" if one.target else f"{one.path} is {one.kind}"
        for one in above
        if one.kind != FOLDER
    ]
    size = facts.size if facts else 0
    return FILES.judged(problems, expected="a regular file", found=f"a file of {size} bytes")


def permissions_finding(
    folder: Facts | None, files: Iterable[Facts], above: Iterable[Facts], *, owner: str,
    modes: tuple[int, int], path: str,
) -> Finding:  # fmt: skip
    """Return whose folder and files are; `modes` are the folder's and the files' highest."""
    problems = differences(folder, path, FOLDER, owner, modes[0])
    count = 0
    for facts in files:
        count += 1
        if facts.kind == FILE:
            problems += differences(facts, facts.path, FILE, owner, modes[1])
    problems += [
        f"{one.path} can be written by others than root"
        for one in above
        if one.owner != "root" or one.mode & 0o002
    ]
    return PERMISSIONS.judged(
        problems, expected=f"{owner} {modes[1]:04o}, folder {modes[0]:04o}", found=f"{count} files"
    )


def open_finding(service: Service | Exception | None, path: str, facts: Facts | None) -> Finding:
    """Return whether the process has this very file open for writing."""
    if not isinstance(service, Service):
        return OPEN.not_measured(service or "the service does not run")
    written = [one for one in service.files if one.writable]
    if facts is not None and any(one.identity == facts.identity for one in written):
        return OPEN.judged([], expected="this file", found="this file")
    folder = path.rpartition("/")[0]
    others = [f"it writes to {one.path}" for one in written if one.path.startswith(folder)]
    return OPEN.judged(others or ["it writes to no file there"], expected=path, found="")


def content_finding(lines: Lines, digests: frozenset[str]) -> Finding:
    """Return whether the records (their lines) hold nothing but what they may."""
    problems: dict[str, None] = {}
    for line in lines:
        for text in _odd(line, digests):
            problems[text] = None
    return CONTENT.judged(
        list(problems), expected="the fields of docs/audit-log.md",
        found=f"none of the last {len(lines)}",
    )  # fmt: skip


def _odd(line: bytes, digests: frozenset[str]) -> Iterator[str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return  # the chain's check says so
    if not isinstance(record, dict):
        return
    where = f"sequence {record.get('event.sequence')}"
    for name in record.keys() - FIELDS:
        yield f"{where}: has the field {str(name)[:60]}, which no record has"
    for name, value in record.items():
        if isinstance(value, str) and len(value) > _LONGEST:
            yield f"{where}: {str(name)[:60]} holds {len(value)} characters"
    digest = record.get("llm.prompt.hash")
    if digest is not None and _HEX.fullmatch(str(digest)) is None:
        yield f"{where}: llm.prompt.hash is no digest"
    for _offset, key in keys_in(line):
        # What a stranger writes into a path is no key of ours, whatever it looks like.
        if key_digest(key) in digests:
            yield f"{where}: holds a registered key in plain text"


def head_of(lines: Lines, verdict: Verdict, name: str) -> dict[str, t.Any]:
    """Return the verified head as `llm-audit head --json` shows it, {} when it is not there."""
    head: dict[str, t.Any] = {}
    epoch = None
    for line in lines:
        with suppress(ValueError, RecursionError, AttributeError):
            record = json.loads(line)
            if record.get("event.action") == "open":
                epoch = record.get("llm.audit.key.epoch")
            elif record.get("event.action") == "seal":
                epoch = record["llm.audit.seal.epoch"] + 1
            if record.get("event.sequence") == verdict.sequence:
                head = {
                    "sequence": verdict.sequence, "hash": verdict.hash, "epoch": epoch,
                    "file": name, "time": record.get("@timestamp"),
                }  # fmt: skip
    return head


def chain_findings(
    verdict: Verdict | Exception, anchor: Mapping[str, t.Any] | None, config: Config, last: int,
    rotated: int,
) -> Iterator[Finding]:  # fmt: skip
    """Yield whether the chain is whole, begins where it should, and goes on from the anchor.

    `last` is the last record's number as the module itself reads it, `rotated` how many files were
    put aside.
    """
    if isinstance(verdict, Exception):
        yield CHAIN.not_measured(verdict)
    else:
        yield _chain(verdict, last)
        yield _beginning(verdict, int(_number(config, "audit_keep_files", 0)), rotated)
    yield _anchor_finding(verdict, anchor, last)


def _chain(verdict: Verdict, last: int) -> Finding:
    problems = verdict.texts("break", anchor=False)
    if verdict.sequence > last:
        problems.append(f"llm-audit read up to {verdict.sequence}, the log ends at {last}")
    unchecked = verdict.texts("unchecked", anchor=False)
    if unchecked and not problems:
        return CHAIN.not_measured(unchecked[0])
    found = f"whole: {verdict.records} records in {verdict.files} files"
    return CHAIN.judged(problems, expected="whole", found=found)


def _beginning(verdict: Verdict, keep: int, rotated: int) -> Finding:
    removed = [text for text in verdict.texts("info", anchor=False) if "older files were" in text]
    # The service itself removes what is over the number that it keeps.
    if not removed or (keep and rotated >= keep):
        return _BEGINNING.judged([], expected="all of them", found="none, or as keep_files says")
    kept = f"{keep} files should be kept, {rotated} are" if keep else "all files should be kept"
    return _BEGINNING.judged([f"{removed[0]}, though {kept}"], expected="all of them", found="")


def _anchor_finding(
    verdict: Verdict | Exception, anchor: Mapping[str, t.Any] | None, last: int
) -> Finding:
    if not anchor:
        return _ANCHOR.skipped("no head was noted before: this run's can be (head)")
    wanted = anchor["sequence"]
    if last < wanted:
        problem = f"the log ends at sequence {last}, and ended at {wanted}: records are gone"
        return _ANCHOR.judged([problem], expected=f"at {wanted} or behind it", found="")
    if isinstance(verdict, Exception):
        return _ANCHOR.not_measured(verdict)
    problems = verdict.texts("break", anchor=True)
    unchecked = verdict.texts("unchecked", anchor=True)
    if unchecked and not problems:
        return _ANCHOR.not_measured(unchecked[0])
    return _ANCHOR.judged(
        problems,
        expected=f"the same record at {wanted}",
        found=f"{last - wanted} records behind it",
    )


def sealed_finding(
    metrics: Metrics | Exception, config: Config, lines: Lines, now: float
) -> Finding:
    """Return whether records are taken and sealed; `lines` are the log's last ones."""
    if isinstance(metrics, Exception):
        return SEALED.not_measured(metrics)
    problems = []
    if metrics.numbers.get("audit_writable") != 1:
        problems.append("the service cannot write its log: it refuses every request")
    if metrics.numbers.get("audit_sealed") != 1:
        problems.append("the log is not sealed")
    seconds = _number(config, "audit_seal_seconds", 300)
    waiting = _unsealed_since(lines)
    if waiting is not None and now - waiting > 3 * seconds + 60:
        problems.append(f"records wait for a seal since {int(now - waiting)} seconds")
    return SEALED.judged(problems, expected=f"a seal within {seconds:g} seconds", found="it is")


def _unsealed_since(lines: Lines) -> float | None:
    """Return the time of the first record behind the last seal; None: there is none, or no seal."""
    since: float | None = None
    sealed = False
    for line in lines:
        if b'"event.action":"seal"' in line:
            since, sealed = None, True
        elif sealed and since is None and b'"event.action":"close"' not in line:
            with suppress(ValueError, RecursionError, AttributeError):
                since = unix_time(json.loads(line).get("@timestamp"))
    return since


def reports_finding(
    path: str, facts: Facts | None, config: Config, sinks: Iterable[str]
) -> Finding:
    """Return whether nginx's socket is there for it alone; `sinks` are sockets that are there."""
    problems = []
    if facts is None or facts.kind != "a socket":
        problems.append(f"{path} is {facts.kind if facts else 'not there'}")
    elif facts.owner != "root" or facts.mode & 0o007 or facts.acl:
        problems.append(f"{path}: others may write records ({facts.owner}, {facts.mode:04o})")
    there = set(sinks)
    for sink, socket in _SINKS.items():
        if sink in str(config.get("audit_sinks", "")) and socket not in there:
            problems.append(f"{socket}, the sink {sink}, is not there")
    return REPORTS.judged(problems, expected="root's socket, closed to others", found="it is")


def space_finding(
    space: tuple[int, int] | Exception, least_bytes: int, least_percent: float
) -> Finding:
    """Return whether enough of (free, all) bytes is free."""
    if isinstance(space, Exception):
        return SPACE.not_measured(space)
    free, whole = space
    percent = 100 * free / whole if whole else 0.0
    found = f"{free // 1_000_000} MB, {percent:.0f} %"
    expected = f"{least_bytes // 1_000_000} MB and {least_percent:g} % free"
    short = free < least_bytes or percent < least_percent
    return SPACE.judged([f"{found} are free"] if short else [], expected=expected, found=found)


def rotation_finding(config: Config, size: int, folder: str, texts: Mapping[str, str]) -> Finding:
    """Return whether files are put aside by size, and nobody else's settings (texts) touch them."""
    most = int(_number(config, "audit_max_file_bytes", 100 * 1024 * 1024))
    touching = [
        f"{path} touches the log's files"
        for path, text in texts.items()
        if any(_touches(path, line.split("#", 1)[0], folder) for line in text.splitlines())
    ]
    grown = f"the file has {size} bytes, and should be put aside at {most}"
    return ROTATION.judged(
        touching + ([grown] if size > most + _OVERSHOOT else []), expected=f"at {most} bytes",
        found=f"at {most} bytes", severity="high" if touching else "",
    )  # fmt: skip


def _touches(path: str, line: str, folder: str) -> bool:
    """Tell whether a line of somebody's settings may empty, move or remove files of the log."""
    if folder not in line and not _matches(line, folder):
        return False
    # What cron starts may be a backup.
    writes = re.search(rf">\s*[\"']?{re.escape(folder)}", line)
    return "cron" not in path or bool(writes or _EMPTIES.search(line))


def _matches(line: str, folder: str) -> bool:
    """Tell whether a word of the line is a glob for files in the folder."""
    words = [word for word in line.split() if word.startswith("/") and "*" in word]
    # Unlike with fnmatch, no wildcard crosses a slash.
    return any(PurePosixPath(folder, "audit.jsonl").match(word) for word in words)
