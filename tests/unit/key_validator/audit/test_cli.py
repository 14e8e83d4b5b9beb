# SPDX-License-Identifier: GPL-3.0-or-later
"""llm-audit as it is called: its output, its exit status, its one sentence when it cannot."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from llm_key_validator.audit import cli, reading
from llm_key_validator.audit.cli import main

from ..conftest import FILES
from .reference_log import FIRST_KEY, ReferenceLog, example

SCRIPT = FILES / "llm-audit"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return example().write(folder)


@pytest.fixture
def first_key(tmp_path: Path) -> str:
    path = tmp_path / "first.key"
    path.write_text(FIRST_KEY.hex() + "\n")
    return str(path)


Run = t.Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        return (status, *capsys.readouterr())

    return call


def test_verify_a_whole_log(run: Run, log: Path, first_key: str) -> None:
    status, out, _err = run("verify", "--first-key", first_key, log)
    assert status == 0
    info, summary = out.splitlines()
    assert info == "info: records after the last seal, not sealed yet: 1"
    assert summary.startswith(
        "whole: 36 records in 3 files, 6 seals, the last at 2026-11-23T20:31:54.123456Z, head 36 "
    )
    assert "(not checked: no --first-key)" in run("verify", log)[1]


def test_first_keys_from_a_folder(run: Run, log: Path, first_key: str, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    status, _out, err = run("verify", "--first-key", folder, log)
    assert status == 2
    assert "holds no *.key" in err
    Path(first_key).rename(folder / "a.key")
    (folder / "b.key").write_text("ab" * 32 + "\n")
    (folder / "head.json").write_text("{}")
    assert run("verify", "--first-key", folder, log)[0] == 0


def test_verify_a_broken_log(run: Run, log: Path) -> None:
    active = log / "audit.jsonl"
    active.write_bytes(active.read_bytes().replace(b"app1", b"app9", 1))
    status, out, _err = run("verify", log)
    assert status == 1
    assert out.startswith("break: audit.jsonl:2: sequence 26: the hash does not fit")
    assert out.splitlines()[-1].startswith("broken (1 break): 36 records")


def test_verify_as_json(run: Run, log: Path, first_key: str) -> None:
    (log / "audit.jsonl").unlink()
    status, out, _err = run("verify", "--json", "--first-key", first_key, log)
    result = json.loads(out)
    assert status == 1
    assert (result["verdict"], result["breaks"], result["seals_checked"]) == ("broken", 1, True)
    assert result["findings"][0]["level"] == "break"
    assert result["head"]["sequence"] == 24


def test_an_anchor_is_what_head_prints(run: Run, log: Path, tmp_path: Path) -> None:
    status, out, _err = run("head", "--json", log)
    head = json.loads(out)
    assert status == 0
    assert head | {"hash": ""} == {
        "sequence": 36,
        "hash": "",
        "epoch": 6,
        "file": "audit.jsonl",
        "time": "2026-11-23T20:31:55.123456Z",
    }
    anchor = tmp_path / "head.json"
    anchor.write_text(out)
    assert run("verify", "--anchor", anchor, log)[0] == 0
    (log / "audit.jsonl").write_bytes(b"".join(example().files[-1][:-1]))
    status, out, _err = run("verify", "--anchor", anchor, log)
    assert status == 1
    assert "before the anchor at 36" in out
    assert run("head", log)[1].startswith("sequence 35  ")


def test_an_anchor_that_is_gone_cannot_be_checked(run: Run, log: Path, tmp_path: Path) -> None:
    anchor = tmp_path / "head.json"
    anchor.write_text(json.dumps({"sequence": 3, "hash": "00" * 32}))
    sorted(log.iterdir())[0].unlink()
    status, out, _err = run("verify", "--anchor", anchor, log)
    assert status == 2
    assert out.splitlines()[-1].startswith("could not be checked: 24 records")


def test_thousands_of_findings_are_counted(
    run: Run, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_MOST_FINDINGS", 2)
    (log / "audit.jsonl").write_bytes(b"junk\n" * 1234)
    status, out, _err = run("verify", log)
    assert status == 1
    assert len(out.splitlines()) == 4
    assert "and 1,232 more" in out or "and 1,233 more" in out
    assert "broken (1,234 breaks)" in out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["verify", "/nowhere"], "/nowhere is not there"),
        (["verify", "--first-key", "/nowhere"], "/nowhere is not there"),
        (["verify", "--first-key", "{junk}"], "is no first key"),
        (["verify", "--anchor", "{junk}"], "is no anchor"),
        (["tail", "-f", "{junk}"], "can be followed"),
        (["head", "{junk}"], "holds no record"),
        (["digest", "--pepper", "/nowhere"], "/nowhere is not there"),
        (["digest", "--pepper", "/dev/null"], "is empty"),
    ],
)
def test_one_sentence_when_it_cannot(
    run: Run, tmp_path: Path, words: list[str], problem: str
) -> None:
    junk = tmp_path / "junk"
    junk.write_text("junk\n")
    status, _out, err = run(*(word.format(junk=junk) for word in words))
    assert status == 2
    sentence = err.splitlines()[-1]
    assert sentence.startswith("llm-audit: ")
    assert problem in sentence


def test_a_log_that_may_not_be_read(run: Run, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.os, "open", refuse)
    for command in ("verify", "tail", "query", "stats", "head"):
        status, _out, err = run(command, log)
        assert status == 2
        assert "use sudo, or join the group adm" in err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["verify", "--unknown"],
        ["query", "--status", "6xx"],
        ["query", "--status", "20"],
        ["query", "--client", "10.0.0"],
        ["query", "--since", "tomorrow"],
        ["query", "--since", "9999999999d"],
        ["query", "--since", "999999999d"],
        ["query", "--model", "a b"],
        ["tail", "-n", "-1"],
        ["stats", "--by", "colour"],
        ["digest", "--sha256", "--pepper", "x"],
    ],
)
def test_bad_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "tail", "query", "stats", "head", "digest"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"\n  llm-audit {command}" in capsys.readouterr().out or command == "digest"


def test_query_and_tail(run: Run, log: Path) -> None:
    status, out, err = run("query", "--key", "app1", "--status", "2xx", "--model", "ti*", log)
    assert (status, len(out.splitlines()), err) == (0, 12, "")
    out = run("query", "--reason", "model", "--json", log)[1]
    assert [json.loads(line)["event.action"] for line in out.splitlines()] == ["refusal"] * 3
    out = run("tail", "-n", "2", "--utc", log)[1]
    seal, refusal = out.splitlines()
    assert "seal" in seal
    assert refusal.startswith("2026-11-23 20:31:55.123  403  refused: model  app2")
    active = log / "audit.jsonl"
    active.write_bytes(active.read_bytes() + b"junk\n")
    assert "1 line could not be read: run llm-audit verify" in run("tail", log)[2]
    assert "1 line could not be read" in run("query", log)[2]


def test_raw_lines_on_a_terminal_do_nothing_to_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"event.action":"refusal","url.path":"\x9b2J\u202e"}\n', encoding="utf-8")
    raw = run("query", "--json", tmp_path)[1]
    assert "\x9b" in raw
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = run("query", "--json", tmp_path)[1].rstrip("\n")
    assert shown.isprintable()
    assert json.loads(shown) == json.loads(raw)


def test_times_are_local_unless_they_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert cli._moment("2026-11-23") == datetime(2026, 11, 22, 15, tzinfo=UTC)
        assert cli._moment("2026-11-23T10:00Z") == datetime(2026, 11, 23, 10, tzinfo=UTC)
        moment = cli._moment("90m")
        assert timedelta(minutes=90) <= datetime.now(UTC) - moment < timedelta(minutes=91)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_stats(run: Run, log: Path) -> None:
    head, app1, app2 = run("stats", log)[1].splitlines()
    assert head.split()[:4] == ["key", "model", "requests", "refused"]
    assert " ".join(app1.split()) == "app1 tiny:latest 12 0 0 0 153.0 153.0 1,440 12,000"
    assert app2.split()[:4] == ["app2", "-", "0", "3"]
    by_reason = [
        json.loads(line) for line in run("stats", "--by", "reason", "--json", log)[1].splitlines()
    ]
    assert by_reason[1] | {"reason": "model", "refused": 3} == by_reason[1]
    assert run("stats", "--since", "2030-01-01", log)[1].splitlines()[1:] == []


def digest(run: Run, monkeypatch: pytest.MonkeyPatch, text: bytes, *words: object) -> tuple:
    stdin = TextIOWrapper(BytesIO(text))
    monkeypatch.setattr(sys, "stdin", stdin)
    return run("digest", *words)


def test_digest(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_bytes(b"0123456789abcdef\n")
    text = "Grüße"
    keyed = hmac.new(b"0123456789abcdef", text.encode(), "sha256").hexdigest()
    assert digest(run, monkeypatch, text.encode(), "--pepper", pepper) == (0, keyed + "\n", "")
    plain = hashlib.sha256(text.encode()).hexdigest()
    assert digest(run, monkeypatch, text.encode(), "--sha256")[1] == plain + "\n"
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": text}]}).encode()
    assert digest(run, monkeypatch, body, "--sha256", "--body", "openai_chat")[1] == plain + "\n"
    assert "newline" in digest(run, monkeypatch, b"x\n", "--sha256")[2]
    assert digest(run, monkeypatch, b"\xff", "--sha256")[0] == 2
    assert digest(run, monkeypatch, b"{", "--sha256", "--body", "openai_chat")[0] == 2


def start(*words: object, **more: t.Any) -> subprocess.Popen[str]:
    return subprocess.Popen([str(SCRIPT), *map(str, words)], text=True, **more)


def test_the_script_runs_from_anywhere(log: Path, tmp_path: Path) -> None:
    link = tmp_path / "llm-audit"
    link.symlink_to(SCRIPT)
    hostile = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"}
    (tmp_path / "json.py").write_text("raise SystemExit('taken over')")
    done = subprocess.run(
        [link, "head", log], cwd=tmp_path, env=hostile, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sequence 36")


def test_the_script_without_its_package_says_so(tmp_path: Path) -> None:
    alone = tmp_path / "llm-audit"
    text = SCRIPT.read_text(encoding="utf-8")
    alone.write_text(text.replace("/usr/local/lib/llm-key-validator", str(tmp_path)))
    alone.chmod(0o755)
    done = subprocess.run([alone, "head"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("llm-audit: its package is not installed: run the role key_validator\n")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs ignore interrupts, and so would what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_closed_pipe_and_an_interrupt_end_it_quietly(log: Path) -> None:
    pipe = subprocess.PIPE
    with start("tail", "-f", log, stdout=pipe, stderr=pipe) as following:
        assert following.stdout is not None
        following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=20) == 130
        assert following.stderr is not None
        assert following.stderr.read() == ""
    read, write = os.pipe()
    os.close(read)
    with start("query", log, stdout=write, stderr=pipe) as querying:
        os.close(write)
        assert querying.wait(timeout=20) == 141
        assert querying.stderr is not None
        assert querying.stderr.read() == ""


def test_tail_follows(tmp_path: Path) -> None:
    writing = ReferenceLog()
    writing.request("a")
    writing.write(tmp_path)
    with start("tail", "-f", "--utc", tmp_path, stdout=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert "open" in following.stdout.readline()
        assert "no response" in following.stdout.readline()
        writing.response("a")
        writing.write(tmp_path)
        assert "20:31:21.123  200      153.0 ms  app1" in following.stdout.readline()
        writing.open()
        writing.request("b")
        (tmp_path / "audit.jsonl").rename(tmp_path / f"audit-{1:020d}.jsonl")
        (tmp_path / "audit.jsonl").write_bytes(b"".join(writing.files[-1]))
        assert "open" in following.stdout.readline()
        assert "no response" in following.stdout.readline()
        following.kill()


def test_progress_on_a_terminal_only_for_long_logs(
    log: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "%" not in run("verify", log)[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "%" not in run("verify", log)[2]
    monkeypatch.setattr(cli, "_WORTH_PROGRESS", 10)
    assert " % of 0 MB" in run("verify", log)[2]
