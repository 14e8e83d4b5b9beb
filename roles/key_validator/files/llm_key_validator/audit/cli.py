# SPDX-License-Identifier: GPL-3.0-or-later
"""llm-audit: check, read and search the LLM gateway's audit log.

Exit status: 0 when all is well, 1 when verify found a break, 2 when something could not be done.
"""

from __future__ import annotations

import argparse
import gc
import ipaddress
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from ..bodies import SHAPES, BodyError, read_body
from ..bodies.names import compile_globs
from .chain import Position, fields_of, is_count, is_hex, position_of
from .findings import Finding, Result
from .query import Event, Filter, Joiner, Reader, read_event, render
from .reading import (
    Log,
    Progress,
    ReadingError,
    end_of_lines,
    explain,
    follow,
    lines_backwards,
    printable,
)
from .records import PromptDigester
from .seals import SealError, expected_by, first_key
from .stats import FIELDS, Stats, Sums
from .verify import Wanted, verify

_FOLDER = Path("/var/log/llm-gateway")
_PEPPER = Path("/etc/llm-key-validator/credentials/prompt-pepper")

_BROKEN = 1
_FAILED = 2
# What a shell reports for a process that SIGINT or SIGPIPE ended
_INTERRUPTED = 130
_PIPE_CLOSED = 141

# Findings that are shown; further ones are counted
_MOST_FINDINGS = 1000
# Smaller logs are read before a person wonders (bytes)
_WORTH_PROGRESS = 50_000_000

_EXAMPLES = """examples:
  llm-audit verify
  llm-audit verify --first-key llm1.key --anchor llm1.head.json /srv/copies/llm1
  llm-audit tail -n 20 -f
  llm-audit query --key chat-app --status 4xx --since 2h
  llm-audit query --model 'llama*' --client 10.0.1.0/24 --json
  llm-audit stats --since 7d --by model
  llm-audit head --json > llm1.head.json
  printf %s 'a known prompt' | llm-audit digest
  llm-audit digest --body openai_chat < request.json
"""

Options = argparse.Namespace


class UsageError(Exception):
    """What was asked for cannot be done. The text is one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit status."""
    # Records come and go by the million and make no cycles: looking for some takes a third.
    gc.set_threshold(100_000)
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's encoding lacks must not end the program.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        options = _parser().parse_args(arguments)
        status = options.run(options)
        sys.stdout.flush()
    except (ReadingError, UsageError) as error:
        sys.stderr.write(f"llm-audit: {error}\n")
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes once more at its end: let it have somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except OSError as error:  # the disk failed half-way
        sys.stderr.write(f"llm-audit: {error.strerror or type(error).__name__}\n")
        return _FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-audit",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_verify(_command(commands, "verify", _verify, "check the chain and the seals"))
    _add_tail(_command(commands, "tail", _tail, "show the last requests"))
    _add_query(_command(commands, "query", _query, "search"))
    _add_stats(_command(commands, "stats", _stats, "sum up by key and model"))
    _command(commands, "head", _head, "show the chain's end, to be kept off the host")
    _add_digest(_command(commands, "digest", _digest, "digest a prompt (stdin) as the log does"))
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[Options], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n".join(line for line in _EXAMPLES.split("\n") if f"llm-audit {name}" in line),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    if name != "digest":
        parser.add_argument(
            "paths",
            nargs="*",
            type=Path,
            metavar="PATH",
            help=f"the log's folder, or its files (default: {_FOLDER})",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--first-key",
        action="append",
        default=[],
        type=Path,
        metavar="FILE|FOLDER",
        help="check the seals with this key, or with a folder's *.key (may be given several times)",
    )
    parser.add_argument(
        "--anchor", type=Path, metavar="FILE", help="the log must continue this output of head"
    )
    parser.add_argument(
        "--from-start", action="store_true", help="older files that were removed are a break"
    )


def _add_tail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=_natural, default=10, metavar="N", help="how many (default: 10)")
    parser.add_argument("-f", action="store_true", dest="follow", help="go on with what comes")
    parser.add_argument("--utc", action="store_true", help="show UTC, not the local time")


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", metavar="ID", help="the key's id")
    parser.add_argument("--model", type=_model, metavar="GLOB", help="the model, such as 'llama*'")
    parser.add_argument("--client", type=_network, metavar="CIDR", help="the client's network")
    parser.add_argument("--status", type=_status, metavar="STATUS", help="such as 200 or 4xx")
    parser.add_argument("--reason", help="the reason of a refusal")
    parser.add_argument("--request", metavar="ID", help="the request's id")
    _add_period(parser)
    parser.add_argument("--utc", action="store_true", help="show UTC, not the local time")


def _add_stats(parser: argparse.ArgumentParser) -> None:
    _add_period(parser)
    parser.add_argument("--by", choices=FIELDS, help="instead of key and model")


def _add_period(parser: argparse.ArgumentParser) -> None:
    text = "such as 2026-11-23, 2026-11-23T20:00Z, or 90s, 15m, 2h, 7d ago"
    parser.add_argument("--since", type=_moment, metavar="TIME", help=text)
    parser.add_argument("--until", type=_moment, metavar="TIME")


def _add_digest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--body",
        choices=sorted(SHAPES),
        metavar="SHAPE",
        help="stdin is a JSON request: take the prompt out of it (one of: %(choices)s)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--pepper", type=Path, default=_PEPPER, metavar="FILE", help="for HMAC")
    how.add_argument("--sha256", action="store_true", help="plain SHA-256, without a pepper")


def _natural(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError("must be a number")
    return int(text)


def _model(text: str) -> Callable[[str], bool]:
    try:
        return compile_globs([text])
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise argparse.ArgumentTypeError("must be an address or a network") from None


def _status(text: str) -> range:
    match = re.fullmatch("([1-5])(?:xx|([0-9]{2}))", text)
    if match is None:
        raise argparse.ArgumentTypeError("must be a status such as 200, or a class such as 4xx")
    first = int(match[1]) * 100
    return range(first, first + 100) if match[2] is None else range(int(text), int(text) + 1)


def _moment(text: str) -> datetime:
    """A moment as people write it; without a zone it is local time."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        if ago := re.fullmatch("([0-9]{1,9})([smhd])", text):
            return datetime.now(UTC) - timedelta(**{units[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("must be a time such as 2026-11-23T20:00Z or 2h") from None


def _paths(options: Options) -> list[Path]:
    return options.paths or [_FOLDER]


def _verify(options: Options) -> int:
    paths = _paths(options)
    anchor = _read_anchor(options.anchor) if options.anchor else None
    keys = dict(_read_first_key(path) for path in _first_key_files(options.first_key))
    findings = _Findings(as_json=options.json)
    with _ProgressLine(paths) as progress:
        wanted = Wanted(keys, anchor, options.from_start)
        result = verify(paths, wanted, findings.add, progress)
    if options.json:
        print(json.dumps(_result_as_json(result, findings, seals_checked=bool(keys))))
    else:
        findings.end()
        print(_summary(result, seals_checked=bool(keys)))
    return {"whole": 0, "broken": _BROKEN}.get(result.verdict, _FAILED)


def _first_key_files(paths: list[Path]) -> list[Path]:
    """Return the files to read: a host that lost its key has had several, in one folder."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.key")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{printable(path)} holds no *.key")
        files += found
    return files


def _read_first_key(path: Path) -> tuple[str, bytes]:
    try:
        key = first_key(_read_small(path).decode())
    except (SealError, UnicodeDecodeError):
        raise UsageError(f"{printable(path)} is no first key: 64 hex digits") from None
    return key.key_id, key.key


def _read_anchor(path: Path) -> Position:
    fields = fields_of(_read_small(path))
    sequence, digest = fields.get("sequence"), fields.get("hash")
    if not is_count(sequence) or not is_hex(digest, 64):
        raise UsageError(f"{printable(path)} is no anchor: keep the output of head --json")
    return Position(sequence, bytes.fromhex(digest))


def _read_small(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(4096)
    except OSError as error:
        raise UsageError(explain(error, path)) from None


class _Findings:
    """Prints findings as they come, or keeps them for the JSON; so many of them."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._left_out = 0
        self.kept: list[Finding] = []

    def add(self, finding: Finding) -> None:
        if len(self.kept) >= _MOST_FINDINGS:
            self._left_out += 1
            return
        self.kept.append(finding)
        if not self._as_json:
            _clear_progress()
            print(_finding_text(finding))

    def end(self) -> None:
        if self._left_out:
            print(f"… and {self._left_out:,} more")


def _finding_text(finding: Finding) -> str:
    where = [finding.file or "", str(finding.line or "")]
    place = ":".join(filter(None, where))
    sequence = f"sequence {finding.sequence}" if finding.sequence is not None else ""
    return ": ".join(filter(None, [finding.level, place, sequence, finding.text]))


def _summary(result: Result, *, seals_checked: bool) -> str:
    parts = [f"{_plural(result.records, 'record')} in {_plural(result.files, 'file')}"]
    if result.seals:
        unchecked = "" if seals_checked else " (not checked: no --first-key)"
        parts.append(f"{_plural(result.seals, 'seal')}{unchecked}, the last at {result.last_seal}")
    else:
        parts.append("no seals")
    if result.head is not None:
        parts.append(f"head {result.head.sequence} {result.head.hash.hex()[:16]}…")
    problem = {"broken": f" ({_plural(result.breaks, 'break')})"}.get(result.verdict, "")
    verdict = "could not be checked" if result.verdict == "unchecked" else result.verdict
    return f"{verdict}{problem}: {', '.join(parts)}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _result_as_json(
    result: Result, findings: _Findings, *, seals_checked: bool
) -> dict[str, object]:
    head = result.head
    return {
        "verdict": result.verdict,
        "records": result.records,
        "files": result.files,
        "seals": result.seals,
        "seals_checked": seals_checked,
        "last_seal": result.last_seal,
        "breaks": result.breaks,
        "head": {"sequence": head.sequence, "hash": head.hash.hex()} if head else None,
        "findings": [
            {name: getattr(one, name) for name in Finding.__slots__} for one in findings.kept
        ],
    }


class _ProgressLine:
    """Says on a terminal how far it is, for long logs only."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._read = 0
        self._total = 0
        self._next = 0.0

    def __enter__(self) -> Progress | None:
        if not sys.stderr.isatty():
            return None
        with closing(Log(self._paths)) as log:
            self._total = log.size()
        return self._say if self._total > _WORTH_PROGRESS else None

    def __exit__(self, *_unused: object) -> None:
        _clear_progress()

    def _say(self, count: int) -> None:
        self._read += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.2
            share = min(100, 100 * self._read // self._total)
            sys.stderr.write(f"\r\x1b[K{share} % of {self._total / 1e6:,.0f} MB")
            sys.stderr.flush()


def _clear_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _tail(options: Options) -> int:
    show = _Shower(options)
    with closing(Log(_paths(options))) as log:
        reader = Reader(log)
        position = _end_of(log)
        joiner = Joiner()
        for event in reader.last_events(options.n):
            show(event)
            if event.action == "request" and event.response is None:
                joiner.expect(event)
        _warn_unreadable(reader.unreadable)
        newest = log.files[-1]
    if options.follow:
        if not newest.active:
            raise UsageError("only a log that is being written can be followed: give its folder")
        for lines in follow(newest, position):
            _show_new(lines, joiner, show)
    return 0


def _end_of(log: Log) -> int:
    for _file, stream in log.streams_backwards():
        return end_of_lines(stream)
    return 0


def _show_new(lines: list[bytes], joiner: Joiner, show: _Shower) -> None:
    for line in lines:
        for event in joiner.take(read_event(line)):
            show(event)
    if not lines:  # caught up: what has no response by now is worth a line of its own
        for event in joiner.waiting():
            show(event)
        sys.stdout.flush()


class _Shower:
    """Prints events: readable, or their raw lines."""

    def __init__(self, options: Options) -> None:
        self._as_json: bool = options.json
        self._zone: tzinfo | None = UTC if options.utc else None

    def __call__(self, event: Event) -> None:
        if not self._as_json:
            print(render(event, self._zone))
            return
        for line in event.lines():
            text = line.decode("utf-8", "replace")
            print(_escaped(text) if sys.stdout.isatty() else text)


def _escaped(text: str) -> str:
    """Return JSON that does nothing to a terminal, and means the same."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _warn_unreadable(count: int) -> None:
    if count:
        sys.stdout.flush()
        text = f"{_plural(count, 'line')} could not be read: run llm-audit verify"
        sys.stderr.write(f"llm-audit: {text}\n")


def _query(options: Options) -> int:
    show = _Shower(options)
    names = ("key", "model", "client", "status", "reason", "request", "since", "until")
    wanted = Filter(**{name: getattr(options, name) for name in names})
    with closing(Log(_paths(options))) as log:
        reader = Reader(log)
        for event in reader.events(wanted):
            show(event)
        _warn_unreadable(reader.unreadable)
    return 0


def _stats(options: Options) -> int:
    by = [options.by] if options.by else ["key", "model"]
    stats = Stats(by)
    with closing(Log(_paths(options))) as log:
        reader = Reader(log)
        for event in reader.events(Filter(since=options.since, until=options.until)):
            stats.add(event)
        _warn_unreadable(reader.unreadable)
    if options.json:
        for group, sums in stats.groups():
            print(json.dumps(dict(zip(by, group, strict=True)) | _sums_as_json(sums)))
    else:
        _print_table(by, stats)
    return 0


def _sums_as_json(sums: Sums) -> dict[str, object]:
    return {
        "requests": sums.requests,
        "refused": sums.refused,
        "failed": sums.failed,
        "unanswered": sums.unanswered,
        "p50_ms": _rounded(sums.durations.percentile(0.5)),
        "p95_ms": _rounded(sums.durations.percentile(0.95)),
        "bytes_in": sums.bytes_in,
        "bytes_out": sums.bytes_out,
    }


def _rounded(milliseconds: float | None) -> float | None:
    """Three digits: the buckets give no more."""
    return None if milliseconds is None else float(f"{milliseconds:.3g}")


def _print_table(by: Iterable[str], stats: Stats) -> None:
    rows: list[list[str]] = []
    for group, sums in stats.groups():
        values = [*group, *_sums_as_json(sums).values()]
        rows.append([_cell(value) for value in values])
    head = [*by, *_sums_as_json(Sums())]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    names = len(head) - len(_sums_as_json(Sums()))
    for row in [head, *rows]:
        cells = [
            text.ljust(width) if index < names else text.rjust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int | float) else printable(value)


def _head(options: Options) -> int:
    with closing(Log(_paths(options))) as log:
        head = _find_head(log)
    if options.json:
        print(json.dumps(head))
    else:
        epoch = "not sealed" if head["epoch"] is None else f"epoch {head['epoch']}"
        print(f"sequence {head['sequence']}  {head['hash']}  {epoch}  {head['time']}")
    return 0


def _find_head(log: Log) -> dict[str, object]:
    """Return the last record's place, and the epoch that it belongs to."""
    head: dict[str, object] = {}
    for file, stream in log.streams_backwards():
        for line in lines_backwards(stream):
            position = position_of(line)
            if position is not None and not head:
                head = {"sequence": position.sequence, "hash": position.hash.hex(), "epoch": None}
                head |= {"file": file.name, "time": printable(fields_of(line).get("@timestamp"))}
            if b'"event.action":"open"' in line or b'"event.action":"seal"' in line:
                expected = expected_by(fields_of(line))
                return head | {"epoch": expected.epoch if expected else None}
    if not head:
        raise UsageError("the log holds no record")
    return head


def _digest(options: Options) -> int:
    pepper = None if options.sha256 else _read_small(options.pepper).strip()
    if pepper == b"":
        raise UsageError(f"{printable(options.pepper)} is empty")
    print(PromptDigester(pepper).digest(_prompt(options.body, sys.stdin.buffer.read())))
    return 0


def _prompt(shape: str | None, content: bytes) -> str:
    if shape is not None:
        try:
            prompt = read_body(shape, b"application/json", content).prompt
        except BodyError as error:
            raise UsageError(f"the gateway refuses this body: {error}") from None
        if prompt is None:
            raise UsageError("this body holds no prompt")
        return prompt.text
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise UsageError("the text is not UTF-8") from None
    if text.endswith("\n"):
        sys.stderr.write("llm-audit: the text ends with a newline, which counts: use printf %s\n")
    return text
