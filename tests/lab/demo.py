# SPDX-License-Identifier: GPL-3.0-or-later
"""./dev demo: an open Ollama is attacked, hardened by the collection, and attacked again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab import artifacts, scenarios
from tests.lab.hosts import STATE, Host, Lab
from tests.lab.probes import FLOOD_TITLE, Seen, Target, probe
from tests.lab.steps import ROOT, LabError, say, step

SERVER_NAME = "llm.internal.example.com"
MODEL = "tiny"
KEY_ID = "demo"
DEBIAN = "12"

DESCRIPTION = STATE / "demo.json"
BEFORE = STATE / "before.json"
REPORT = STATE / "report"
INVENTORY = STATE / "inventory"
VARIABLES = INVENTORY / "group_vars" / "llm_hosts"
CA_FILE = STATE / "pki" / "ca.crt"
CLIENT = STATE / "pki" / "clients" / KEY_ID
KEY_FILE = STATE / "demo.key"
CURL_HEADER = STATE / "authorization.header"
CA_ON_HOSTS = "/etc/ssl/lab-ca.crt"
CERTIFICATE_ON_HOSTS = "/etc/ssl/lab-client.pem"
MODES = ("api_key", "mtls", "both", "either")


def lab() -> Lab:
    """The demo's three hosts."""
    gateway = Host("gateway", DEBIAN, groups=("llm_hosts",), aliases=(SERVER_NAME,))
    return Lab("demo", [gateway, *scenarios.neighbours()], inventory_directory=INVENTORY)


def playbook(*words: str | Path) -> None:
    """Run ansible-playbook on the demo's inventory, its output shown as it comes."""
    command = ["ansible-playbook", "-i", str(INVENTORY), *(str(word) for word in words)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command[:5])} … failed with {done.returncode}; see above")


def mode_of(words: list[str]) -> str:
    """What clients must show, by the caller's own `-e gateway_auth=…`."""
    found = re.findall(r"""\bgateway_auth["']?\s*[=:]\s*["']?(\w+)""", " ".join(words))
    mode = found[-1] if found else "api_key"
    if mode not in MODES:
        raise LabError(f"gateway_auth is one of {', '.join(MODES)}, not {mode}")
    return mode


def write_variables(mode: str) -> None:
    """What a user would write into group_vars: the gateway's name, where the CA is kept, and the
    client that gets a certificate from it."""
    VARIABLES.mkdir(parents=True, exist_ok=True)
    clients: dict[str, Any] = {
        "pki_clients": [{"name": KEY_ID}],
        # Its key has the same name; with `either` one of the two will do.
        "key_validator_clients": [{"id": KEY_ID, "bound": mode != "either"}],
    }
    content = {
        **(clients if mode != "api_key" else {}),
        "gateway_server_names": [SERVER_NAME],
        "pki_ca_directory": "{{ inventory_dir }}/../pki",
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
        "posture_waivers": [
            {
                "id": "service.ollama.version",
                "reason": "The lab builds the newest release that its module proxy has.",
                "owner": "the demo",
                "expires": "2099-12-31",
            }
        ],
    }
    (VARIABLES / "gateway.yml").write_text(json.dumps(content, indent=2) + "\n")


def issue_key() -> str:
    """The application server's key: made once, its hash beside the other variables."""
    if not KEY_FILE.exists():
        playbook(
            "llmsec.hardening.issue_key",
            *("-e", f"issue_key_id={KEY_ID}"),
            *("-e", "issue_key_owner=application server of the demo"),
            *("-e", "issue_key_expires=30d"),
            *("-e", f"issue_key_vars_file={VARIABLES / 'api_keys.yml'}"),
            *("-e", f"issue_key_secret_file={KEY_FILE}"),
        )
    return KEY_FILE.read_text().strip()


def equip_clients(up: Lab) -> None:
    """Give the neighbours the CA's certificate, and the application server its own."""
    text = CA_FILE.read_text() if CA_FILE.exists() else ""
    for host in ("app-server", "stranger"):
        up.run(host, "sh", "-c", f"cat >{CA_ON_HOSTS}", stdin=text, check=True)
    files = [CLIENT / "client.crt", CLIENT / "client.key"]
    pair = "".join(path.read_text() for path in files if path.exists())
    keep = f"umask 077; cat >{CERTIFICATE_ON_HOSTS}"
    up.run("app-server", "sh", "-c", keep, stdin=pair, check=True)


def write_description(up: Lab, key: str, mode: str) -> None:
    """.lab/demo.json and the header file of the curl line; both hold the key, so 0600."""
    addresses = up.addresses()
    content: dict[str, Any] = {
        name.replace("-", "_"): {"container": up.container(name), "address": addresses[name][0]}
        for name in ("gateway", "app-server", "stranger")
    }
    content |= {
        "server_name": SERVER_NAME,
        "url": f"https://{SERVER_NAME}",
        "ca_file": str(CA_FILE.relative_to(ROOT)),
        "api_key": key,
        "model": MODEL,
    }
    if mode != "api_key":
        content |= {
            "client_certificate": str((CLIENT / "client.crt").relative_to(ROOT)),
            "client_key": str((CLIENT / "client.key").relative_to(ROOT)),
        }
    for path, text in (
        (CURL_HEADER, f"Authorization: Bearer {key}\n"),
        (DESCRIPTION, json.dumps(content, indent=2) + "\n"),
    ):
        path.touch(0o600)
        path.write_text(text)


def table(before: list[Seen], after: list[Seen]) -> str:
    """Before and after, side by side, with a mark on what is as it must be."""
    rows = [("", "before", "after", "")]
    # A first demo with another gateway_auth did not ask everything.
    old = {seen.title: seen.text for seen in before}
    rows += [
        (
            new.title,
            old.get(new.title, "not asked"),
            new.text,
            "ok" if new.good else "NOT AS IT MUST BE",
        )
        for new in after
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def curl_line(address: str, mode: str) -> str:
    """One line to paste: the key stays out of the process list, in a file."""
    body = json.dumps({"model": MODEL, "prompt": "Is this door closed?"})
    ca_file, header = CA_FILE.relative_to(ROOT), CURL_HEADER.relative_to(ROOT)
    folder = CLIENT.relative_to(ROOT)
    key = "" if mode == "mtls" else f"-H @{header} "
    pair = f"--cert {folder}/client.crt --key {folder}/client.key "
    shown = key + (pair if mode in {"mtls", "both"} else "")
    return (
        f"curl --noproxy '*' --cacert {ca_file} {shown}-H 'Content-Type: application/json' "
        f"--resolve {SERVER_NAME}:443:{address} https://{SERVER_NAME}/api/generate -d '{body}'"
    )


def audit_log(up: Lab) -> tuple[str, list[str]]:
    """What the gateway wrote down of the application server, and what is wrong with the log."""
    shown, wrong = [], []
    for words in (("query", "--key", KEY_ID), ("tail", "-n", "3"), ("verify",)):
        command = f"llm-audit {' '.join(words)}"
        result = up.run("gateway", "llm-audit", *words)
        shown.append(f"  $ sudo {command}")
        shown += [f"  {line}" for line in (result.stdout + result.stderr).splitlines()]
        if result.returncode != 0:
            wrong.append(f"{command} ended with {result.returncode}")
        elif words[0] == "query" and not result.stdout.strip():
            wrong.append(f"{command} found nothing")
    return "\n".join(shown), wrong


def give_to_caller() -> None:
    """Under sudo, what the demo wrote belongs to who called it: the curl line reads the key."""
    if "SUDO_UID" in os.environ:
        for path in [STATE, *STATE.rglob("*")]:
            shutil.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))


def assess(name: str, words: list[str]) -> None:
    """What the collection says of the host: .lab/report/NAME.*, whatever it is."""
    options = {"posture_report_dir": str(REPORT), "posture_report_name": name}
    if name != "before":
        options["posture_baseline"] = str(REPORT / "before.json")
    extra = json.dumps({**options, "posture_fail_on": "never"})
    playbook("llmsec.hardening.assess", *words, "-e", extra)


def attack_before(up: Lab, target: Target, words: list[str]) -> list[Seen]:
    """The probes on the open host; remembered, for a second demo finds it hardened."""
    if not BEFORE.exists():
        with step("Installing Ollama the way most guides do"):
            playbook(ROOT / "tests/lab/open_ollama.yml")
        with step("Assessing it: ansible-playbook -i .lab/inventory llmsec.hardening.assess"):
            assess("before", words)
        with step("Attacking it from the stranger"):
            equip_clients(up)
            BEFORE.write_text(json.dumps([asdict(seen) for seen in probe(target)]))
    return [Seen(**seen) for seen in json.loads(BEFORE.read_text())]


def up_and_harden(words: list[str]) -> int:
    """The whole demo; 1 when something is not as it must be on a hardened host."""
    start, mode = time.monotonic(), mode_of(words)
    image = partial(artifacts.image, DEBIAN)
    artifacts.build(artifacts.ollama, artifacts.model, artifacts.clients, image)
    hosts = lab()
    hosts.up()
    write_variables(mode)
    key = issue_key()
    v4, v6 = hosts.addresses()["gateway"]
    target = Target(hosts, v4, v6, SERVER_NAME, CA_ON_HOSTS, key, MODEL, mode, CERTIFICATE_ON_HOSTS)
    before = attack_before(hosts, target, words)
    with step("Hardening it: ansible-playbook -i .lab/inventory llmsec.hardening.harden"):
        # The assessment comes next, with a report.
        playbook("llmsec.hardening.harden", *words, "-e", "harden_assess=false")
    with step("Assessing it again"):
        assess("after", words)
    write_description(hosts, key, mode)
    with step("Attacking it again"):
        equip_clients(hosts)
        after = probe(target)
    give_to_caller()
    print(f"\n{table(before, after)}\n\nAsk it yourself:\n\n  {curl_line(v4, mode)}\n")
    written, wrong = audit_log(hosts)
    print(f"What the gateway wrote down (no prompt, no key is in it):\n\n{written}\n")
    print("What the collection says of it, before and after: .lab/report/after.html\n")
    print("The hosts stay up (.lab/demo.json says where); ./dev demo down removes them.")
    say(f"The whole demo took {time.monotonic() - start:.0f} s")
    # Other settings than the default may well turn the limits off: the table shows it.
    judged = [seen for seen in after if not (words and seen.title == FLOOD_TITLE)]
    if wrong:
        print(f"The audit log is NOT AS IT MUST BE: {'; '.join(wrong)}")
    return 0 if all(seen.good for seen in judged) and not wrong else 1


def down() -> None:
    """Remove the demo's hosts and everything that describes them."""
    Lab("demo", [], inventory_directory=INVENTORY).down()
    for path in (DESCRIPTION, BEFORE, KEY_FILE, CURL_HEADER):
        path.unlink(missing_ok=True)
    for folder in (CA_FILE.parent, REPORT):
        shutil.rmtree(folder, ignore_errors=True)


def main(words: list[str]) -> int:
    if words == ["down"]:
        down()
        return 0
    return up_and_harden(words)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"./dev demo: {error}")
