# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verify modules said of one host, put together: a module that failed is a finding."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS
from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)

__all__ = ("AssessmentError", "findings_of", "host_findings", "hosts_found", "reached", "targets")

Finding = dict[str, t.Any]
Target = dict[str, t.Any]
_SHOWN_FACTS = ("distribution", "distribution_version", "architecture", "kernel")
_REMEDY = "Run the module alone with -vvv to see why."


class AssessmentError(ValueError):
    """The results are no results of modules."""


def findings_of(subject: str, control: str, result: object) -> list[Finding]:
    """Return the findings in a module's registered result.

    `subject` is what the module looks at ("listeners"), `control` the one that is not measured
    when the module failed. A task that was left out is told by other means, so it has none.
    """
    if not isinstance(result, Mapping):
        raise AssessmentError(f"{subject}: no result of a module, but {type(result).__name__}")
    if result.get("skipped") is True:
        return []
    found = result.get("findings")
    if isinstance(found, Sequence) and not isinstance(found, str):
        return [dict(one) for one in found]
    why = str(result.get("msg") or "").strip() or "it gave no findings"
    title = f"verify_{subject} looks at the host"
    return [not_measured(f"{subject}.module", control, title, why.splitlines()[0], _REMEDY)]


def host_findings(
    results: Mapping[str, Mapping[str, t.Any]], skips: Iterable[Mapping[str, str]] = ()
) -> list[Finding]:
    """Return all findings of a host, in the order of `results`.

    `results` has a module's `control` and registered `result` by subject. `skips` are what is not
    looked at by choice: `id`, `control`, `reason`; with a `severity` it is a failure, and with
    `result` what that says.
    """
    found: list[Finding] = []
    for subject, one in results.items():
        found += findings_of(subject, one["control"], one["result"])
    return found + [_skip(**one) for one in skips]


def _skip(
    id: str, control: str, reason: str, severity: str = "", result: str = ""
) -> Finding:  # fmt: skip
    known = CONTROLS[control]
    return finding(
        id, control, known.title, severity or known.severity,
        result or ("fail" if severity else "skip"),
        expected="it is in force", actual=reason, remediation=known.remediation,
    )  # fmt: skip


def reached(answers: Mapping[str, object], host: str) -> list[Finding]:
    """Return what the neighbours found of one host.

    `answers` has each neighbour's registered result; its findings name the host in `host`.
    """
    found: list[Finding] = []
    for neighbour, result in answers.items():
        lost = isinstance(result, Mapping) and result.get("unreachable") is True
        said = {"msg": f"{neighbour} cannot be reached"} if lost else result
        for one in findings_of("reachability", "network_isolation", said):
            if one.pop("host", host) == host:
                found.append(one)
                if one["id"] == "reachability.module":  # which does not know whom it asked from
                    one["id"] += f".{neighbour}"
    return found


def hosts_found(
    names: Iterable[str], variables: Mapping[str, Mapping[str, t.Any]]
) -> dict[str, dict[str, t.Any]]:
    """Return the `hosts` of `posture_report`, from what the hosts' variables hold.

    A host's `posture_targets` name the neighbours that must have answered in `posture_reached`.
    `posture_failed` is why looking at a host came to an end; without it and without
    `posture_found` the host was not reached.
    """
    hosts: dict[str, dict[str, t.Any]] = {}
    for name in names:
        known = variables[name]
        found, failed = known.get("posture_found"), known.get("posture_failed")
        if failed:
            hosts[name] = {"failed": str(failed)}
        elif found is None:
            hosts[name] = {"unreachable": True}
        else:
            hosts[name] = {
                "findings": [*found, *reached(_answers(known, variables), name)],
                "address": str(known.get("ansible_host", name)),
                "facts": _facts(known.get("ansible_facts", {})),
            }
    return hosts


def _answers(
    known: Mapping[str, t.Any], variables: Mapping[str, Mapping[str, t.Any]]
) -> dict[str, object]:
    asked = dict.fromkeys(one["neighbour"] for one in known.get("posture_targets") or [])
    silent = {"msg": "it was not asked"}
    return {name: _of(variables, name).get("posture_reached") or silent for name in asked}


def _of(variables: Mapping[str, Mapping[str, t.Any]], name: str) -> Mapping[str, t.Any]:
    # Of a name that it lacks, hostvars gives something undefined.
    return variables[name] if name in variables else {}  # noqa: SIM401


def _facts(facts: Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {key: facts[key] for key in _SHOWN_FACTS if key in facts}


def targets(plan: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return who asks what: `direct` on the host itself, `neighbours` as a list that names them.

    `plan` has the host's name and `addresses`; `managed_by`, by which the control node reaches it;
    its `gateway_port` and `private_ports`; `app_servers`, `strangers` and whether the
    `control_node` asks too; `isolated`, whether a firewall keeps strangers from the gateway.
    """
    private, gateway = plan["private_ports"], [plan["gateway_port"]]
    everywhere = [
        {"address": address, "port": port} for address in plan["addresses"] for port in private
    ]
    loopback = [{"address": "127.0.0.1", "port": port} for port in private]
    closed = list(_targets(plan["host"], plan["addresses"], private, "closed"))
    asked = {
        name: [*closed, *_targets(plan["host"], plan["addresses"], gateway, "open")]
        for name in plan["app_servers"]
    }
    for name in plan["strangers"]:
        shut = gateway if plan["isolated"] else []
        asked[name] = [*closed, *_targets(plan["host"], plan["addresses"], shut, "closed")]
    if plan["control_node"]:
        near = _targets(plan["host"], [plan["managed_by"]], private, "closed")
        asked.setdefault("localhost", [*near])
    neighbours = [{"neighbour": name, "target": one} for name in asked for one in asked[name]]
    return {"direct": loopback + everywhere, "neighbours": neighbours}


def _targets(
    host: str, addresses: Sequence[str], ports: Iterable[int], expected: str
) -> Iterator[Target]:  # fmt: skip
    """Yield each port of each address, as verify_reachability takes them."""
    for port in ports:
        for number, address in enumerate(addresses, 1):
            further = f"-{number}" if number > 1 else ""
            yield {
                "host": host, "address": address, "port": port, "expected": expected,
                "id": f"port-{port}{further}", "title": f"port {port} of {host}",
            }  # fmt: skip
