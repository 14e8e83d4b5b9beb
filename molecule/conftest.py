# SPDX-License-Identifier: GPL-3.0-or-later
"""What all scenarios' tests use: their gateways (Debian 12 and 13), the neighbours, the keys.

Requests are made by curl on the host where the attacker or the application would be.
"""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from tests.lab import batch, curl, podman, scenarios
from tests.lab.batch import Question
from tests.lab.curl import Answer
from tests.lab.hosts import STATE, Lab
from tests.lab.link import Door
from tests.lab.steps import ROOT

CA_ON_HOSTS = "/etc/ssl/lab-{scenario}-ca.crt"
UNITS = ("nginx.service", "llm-key-validator.service", "ollama.service")


def _scenario(path: Path) -> str:
    return path.relative_to(ROOT / "molecule").parts[0]


@dataclass(frozen=True)
class Gateway:
    """One hardened host, as its neighbours know it."""

    lab: Lab
    name: str
    address: str
    address6: str
    ca_file: str  # on the neighbours

    @property
    def server_name(self) -> str:
        return scenarios.server_name(self.name)

    @cached_property
    def host(self) -> Host:
        """The host itself, for testinfra."""
        return testinfra.get_host(f"podman://{self.lab.container(self.name)}")

    def url(self, path: str, port: int = 443) -> str:
        return f"https://{self.server_name}:{port}{path}"

    def ask(
        self, path: str, *words: str, key: str = "", by: str = "app-server", port: int = 443
    ) -> Answer:
        """A request to the gateway from a neighbour that trusts the CA."""
        # As it is written: curl would tidy up /../ and //.
        words = ("--path-as-is", *words, self.url(path, port))
        return curl.request(self.lab, by, *words, key=key, ca_file=self.ca_file)

    def ask_all(
        self, questions: Iterable[Question], key: str = "", by: str = "app-server"
    ) -> list[Answer]:
        """Many requests with one key, one after the other on one connection."""
        return batch.ask_all(self.lab, by, self.url(""), questions, key=key, ca_file=self.ca_file)

    def journal(self, unit: str) -> str:
        return self.host.check_output("journalctl --no-pager --output=cat --unit=%s", unit)

    def main_pid(self, unit: str) -> int:
        return int(self.host.check_output("systemctl show --property=MainPID --value %s", unit))


@pytest.fixture(scope="session")
def lab() -> Lab:
    return scenarios.lab()


@pytest.fixture(scope="session")
def scenario(request: pytest.FixtureRequest) -> str:
    return _scenario(request.session.items[0].path)


def _gateway(lab: Lab, scenario: str, name: str) -> Gateway:
    v4, v6 = lab.addresses()[name]
    return Gateway(lab, name, v4, v6, CA_ON_HOSTS.format(scenario=scenario))


@pytest.fixture(scope="session")
def gateway(request: pytest.FixtureRequest, lab: Lab, scenario: str) -> Gateway:
    return _gateway(lab, scenario, request.param)


@pytest.fixture(scope="session")
def gateways(lab: Lab, scenario: str) -> list[Gateway]:
    """All of the scenario's gateways, for a test that runs a playbook over them at once."""
    return [_gateway(lab, scenario, name) for name in scenarios.gateways(scenario)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that asks for `gateway` runs on each of the scenario's hosts."""
    if "gateway" in metafunc.fixturenames:
        names = list(scenarios.gateways(_scenario(metafunc.definition.path)))
        metafunc.parametrize("gateway", names, indirect=True, scope="session")


@pytest.fixture(scope="session", autouse=True)
def neighbours_trust_the_ca(scenario: str, lab: Lab) -> None:
    """Put the scenario's CA certificate where the neighbours' curl looks for it."""
    ca = STATE / "molecule/pki" / scenario / "ca.crt"
    if ca.exists():
        for name in ("app-server", "stranger"):
            write = f"cat >{CA_ON_HOSTS.format(scenario=scenario)}"
            lab.run(name, "sh", "-c", write, stdin=ca.read_text(), check=True)


@pytest.fixture(scope="session")
def keys(scenario: str) -> dict[str, str]:
    """The scenario's API keys by id, as their users hold them."""
    directory = STATE / "molecule/keys" / scenario
    return {path.stem: path.read_text().strip() for path in directory.glob("*.key")}


def _door(gateway: Gateway, scenario: str) -> Door:
    trust = ssl.create_default_context(cafile=STATE / "molecule/pki" / scenario / "ca.crt")
    return Door(gateway.address, gateway.server_name, trust)


@pytest.fixture(scope="session")
def door(gateway: Gateway, scenario: str) -> Door:
    """The gateway's HTTPS port, as a client on the control node sees it."""
    return _door(gateway, scenario)


@pytest.fixture(scope="session")
def doors(gateways: list[Gateway], scenario: str) -> dict[str, Door]:
    """All of the scenario's gateways' HTTPS ports by host, while playbooks run over them."""
    return {gateway.name: _door(gateway, scenario) for gateway in gateways}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """A failing test shows what the gateway's services last said."""
    report = yield
    arguments = getattr(item, "funcargs", {})
    asked = arguments.get("gateways") or filter(None, [arguments.get("gateway")])
    if report.when == "call" and report.failed:
        for gateway, unit in itertools.product(asked, UNITS):
            words = ["journalctl", "--no-pager", "--lines=15", "--output=cat", f"--unit={unit}"]
            text = podman.podman("exec", gateway.lab.container(gateway.name), *words, check=False)
            report.sections.append((f"{gateway.name}: {unit}", text.stdout))
    return report
