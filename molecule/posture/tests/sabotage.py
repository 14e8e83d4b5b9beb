# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaking a hardened host in many ways (sabotages.yml), and putting it back as it was.

Several at once, as long as they are in different places: an assessment takes its time.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.lab.hosts import Lab
from tests.lab.scenarios import AUDIT

KEPT = "/root/kept"
_NAMES = """\
set -eu
SITE=/etc/nginx/conf.d/llm-gateway.conf GATEWAY=/etc/nginx/llm-gateway PKI=/etc/llm-gateway/pki
DROPINS=/etc/systemd/system/ollama.service.d
"""


@dataclass(frozen=True)
class Place:
    """Where something is broken: what is put back, and the lines that make a change there work.

    `clean` takes away what is no file, before files are put back.
    """

    paths: tuple[str, ...] = ()
    apply: str = "true"
    clean: str = "true"


_WAIT = "for n in $(seq 50); do {} && break; sleep 0.2; done"
PLACES = {
    "nginx": Place(
        ("/etc/nginx", "/etc/llm-gateway"),
        "nginx -t -q; systemctl reload nginx.service; sleep 2",
        "rm -f /var/log/nginx/s.log",
    ),
    "ollama": Place(
        ("/etc/systemd/system/ollama.service.d",),
        "systemctl daemon-reload; systemctl restart ollama.service; "
        + _WAIT.format("curl -sf -o /dev/null http://127.0.0.1:11434/api/version"),
        "systemctl stop sabotage-squatter.service 2>/dev/null || true",
    ),
    "validator": Place(
        (
            "/usr/local/lib/llm-key-validator",
            "/etc/llm-key-validator",
            "/etc/systemd/system/llm-key-validator.service.d",
            "/var/log/llm-gateway",
            "/var/lib/llm-key-validator",
        ),
        "systemctl daemon-reload; systemctl restart llm-key-validator.service",
        "systemctl stop llm-key-validator.service",
    ),
    "python": Place(("/usr/lib/python3/dist-packages/sabotage.pth",)),
    "nft": Place(
        ("/etc/llm-firewall",),
        "true",
        "nft delete table ip sabotage 2>/dev/null || true",
    ),
    "units": Place(
        (
            "/etc/systemd/system/sabotage-relay.socket",
            "/etc/systemd/system/sabotage-relay.service",
        ),
        "systemctl daemon-reload",
        "systemctl stop 'sabotage-*.service' 'sabotage-*.socket' 2>/dev/null || true",
    ),
    "secrets": Place(),
    "dpkg": Place(("/var/lib/dpkg/status",)),
}
# After a firewall's rules were put back they are loaded, as at boot.
_AFTERWARDS = {
    "nft": "systemctl --quiet enable llm-firewall.service; systemctl restart llm-firewall.service"
}


@dataclass(frozen=True)
class Sabotage:
    """One entry of sabotages.yml."""

    id: str
    control: str
    place: str
    lines: str
    red: tuple[str, ...]
    apply: str = ""
    undo: str = "true"
    also: dict[str, str] = field(default_factory=dict, hash=False)


def sabotages() -> list[Sabotage]:
    """All of sabotages.yml."""
    entries = yaml.safe_load(Path(__file__).with_name("sabotages.yml").read_text())
    return [
        Sabotage(
            entry["id"], entry["control"], entry["place"], entry["break"], tuple(entry["red"]),
            entry.get("apply", ""), entry.get("undo", "true"), entry.get("with", {}),
        )
        for entry in entries
    ]  # fmt: skip


# Over how many batches a long list is spread in dense rounds: what is far apart comes together.
_BATCHES = {"nginx": 12}


def dense_rounds(every: Iterable[Sabotage], hosts: int) -> list[list[list[Sabotage]]]:
    """The same with something in every place at a time, which is quick, and says less about each:
    a finding that is red for one reason hides that it would not be for the other."""
    by_place: dict[str, list[Sabotage]] = {}
    for one in every:
        by_place.setdefault(one.place, []).append(one)
    columns: list[list[Sabotage]] = []
    for place, group in by_place.items():
        number = _BATCHES.get(place, len(group))
        columns += [[] for _missing in range(number - len(columns))]
        for index, one in enumerate(group):
            columns[index % number].append(one)
    return [columns[start : start + hosts] for start in range(0, len(columns), hosts)]


def rounds(every: Iterable[Sabotage], hosts: int) -> list[list[list[Sabotage]]]:
    """Share them out: for each round and host a few in different places.

    The place with the most makes the batches, the others are spread over them.
    """
    by_place: dict[str, list[Sabotage]] = {}
    for one in every:
        by_place.setdefault(one.place, []).append(one)
    most = max(by_place, key=lambda place: len(by_place[place]))
    batches = [[one] for one in by_place.pop(most)]
    for one in (one for group in by_place.values() for one in group):
        free = [batch for batch in batches if one.place not in {other.place for other in batch}]
        min(free, key=len).append(one)
    return [batches[start : start + hosts] for start in range(0, len(batches), hosts)]


def _places(batch: Iterable[Sabotage]) -> dict[str, list[Sabotage]]:
    """Return what is broken in each place: it is kept, loaded and put back once."""
    found: dict[str, list[Sabotage]] = {}
    for one in batch:
        found.setdefault(one.place, []).append(one)
    return found


def breaking(batch: Iterable[Sabotage], key: str, head: int) -> str:
    """The lines that break a host. `key` is a good API key of its own, `head` the sequence number
    of the record up to which the control node knows its log."""
    places = _places(batch)
    paths = " ".join(path for name in places for path in PLACES[name].paths)
    lines = [f"rm -rf {KEPT}; mkdir {KEPT}; cp -a --parents {paths} {KEPT} 2>/dev/null || true"]
    own = []
    for name, group in places.items():
        usual = [_said(one, one.lines) for one in group if not one.apply]
        lines += [*usual, PLACES[name].apply] if usual else []
        own += [one for one in group if one.apply]
    # What nothing is reloaded for comes last: others would have it read.
    own.sort(key=lambda one: one.apply == "true")
    lines += [_said(one, f"{one.lines}\n{one.apply}") for one in own]
    return "\n".join([f"{_NAMES}KEY={key} HEAD={head}", *lines])


def _said(one: Sabotage, lines: str) -> str:
    """A failure tells which it was."""
    return f"echo {shlex.quote(one.id)}: >&2\n(\n{lines}\n)"


def restoring(batch: Iterable[Sabotage]) -> str:
    """The lines that put the host back."""
    places = _places(batch)
    lines = [_said(one, one.undo) for group in places.values() for one in group]
    for name in reversed(places):
        place = PLACES[name]
        files = [
            f"rm -rf {path}; if [ -e {KEPT}{path} ]; then cp -a {KEPT}{path} {path}; fi"
            for path in place.paths
        ]
        lines += [place.clean, *files, place.apply, _AFTERWARDS.get(name, "true")]
    return "\n".join([_NAMES, *lines])


@contextmanager
def broken(lab: Lab, batches: Mapping[str, Iterable[Sabotage]], key: str) -> Iterator[None]:
    """Break each host in several ways, all hosts at once; afterwards they are as they were."""
    # The log is put back as it was, so what is known of its end must be as well.
    heads = {host: AUDIT / host / "head.json" for host in batches}
    noted = {host: head.read_text() for host, head in heads.items()}
    try:
        _on_all(
            lab,
            {
                host: breaking(batch, key, json.loads(noted[host])["sequence"])
                for host, batch in batches.items()
            },
        )
        yield
    finally:
        try:
            _on_all(lab, {host: restoring(batch) for host, batch in batches.items()})
        finally:
            for host, head in heads.items():
                head.write_text(noted[host])


def _on_all(lab: Lab, scripts: Mapping[str, str]) -> None:
    with ThreadPoolExecutor(len(scripts)) as pool:
        done = list(pool.map(lambda host: lab.run(host, "sh", "-c", scripts[host]), scripts))
    failed = {
        host: one.stderr for host, one in zip(scripts, done, strict=True) if one.returncode != 0
    }
    assert not failed, failed
