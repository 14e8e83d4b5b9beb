# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of controls: what a hardened host promises, and which standards ask for it.

Every finding and every waiver names one of them, reports group by them. Numbers of standards:
OWASP Top 10 for LLM applications 2025 and API Security Top 10 2023, CIS NGINX Benchmark, NIST SP
800-53 revision 5, BSI IT-Grundschutz and Grundschutz++, MITRE ATLAS, GDPR. Pure data.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ("CONTROLS", "RESULTS", "SEVERITIES", "Control")

# From the least to the worst; a gate `fail_on: high` fails for high and critical.
SEVERITIES = ("info", "low", "medium", "high", "critical")
# `error` is what could not be measured, which is no pass.
RESULTS = ("pass", "fail", "error", "skip")


@dataclass(frozen=True, slots=True)
class Control:
    """One promise. `severity` is that of its absence; `standards` maps each to its numbers."""

    id: str
    title: str
    severity: str
    remediation: str
    standards: Mapping[str, tuple[str, ...]]

    def as_dict(self) -> dict[str, t.Any]:
        """Return the control as plain data, for reports."""
        standards = {name: list(numbers) for name, numbers in self.standards.items()}
        return {
            "id": self.id, "title": self.title, "severity": self.severity,
            "remediation": self.remediation, "standards": standards,
        }  # fmt: skip


def _control(
    control_id: str, title: str, severity: str, remediation: str, **standards: str
) -> tuple[str, Control]:
    numbers = {_NAMES[key]: tuple(text.split()) for key, text in standards.items()}
    return control_id, Control(control_id, title, severity, remediation, MappingProxyType(numbers))


_NAMES = {
    "llm": "OWASP LLM 2025", "api": "OWASP API 2023", "cis": "CIS NGINX", "nist": "NIST 800-53r5",
    "bsi": "BSI IT-Grundschutz", "bsi_pp": "BSI Grundschutz++", "atlas": "MITRE ATLAS",
    "gdpr": "GDPR",
}  # fmt: skip

CONTROLS: Mapping[str, Control] = MappingProxyType(
    dict(
        (
            _control(
                "loopback", "The LLM server listens on loopback only", "critical",
                "Apply the role ollama, which binds the server to 127.0.0.1.",
                llm="LLM10 LLM02", api="API8 API9", cis="2.4.1", nist="CM-7 SC-7(5) AC-17",
                bsi="SYS.1.1.A6", bsi_pp="KONF.2.4 KONF.11.7",
                atlas="AML.T0006 AML.T0049 AML.T0040", gdpr="25",
            ),
            _control(
                "authentication", "Nobody gets in without a key or a certificate", "critical",
                "Apply the roles key_validator and gateway, and issue a key for each application.",
                llm="LLM10 LLM02", api="API2", cis="5.1.1", nist="IA-2 IA-8 IA-9 IA-5 AC-3",
                bsi="APP.3.1.A1", bsi_pp="KONF.11.1", atlas="AML.T0040 AML.T0012 AML.M0019",
            ),
            _control(
                "mtls", "Clients prove who they are with a certificate", "high",
                "Set gateway_auth to mtls, both or either, and apply the roles pki and gateway.",
                api="API2", cis="4.1.10", nist="IA-3 IA-5(2) SC-17 SC-23", bsi="SYS.1.1.A19",
                bsi_pp="KONF.11.1.2 BER.7.16", atlas="AML.T0012 AML.T0091",
            ),
            _control(
                "tls", "Traffic is encrypted by a current TLS profile", "high",
                "Apply the roles pki and gateway with gateway_tls_profile intermediate or modern.",
                api="API8", cis="4.1.1 4.1.2 4.1.3 4.1.4 4.1.5 4.1.6", nist="SC-8(1) SC-12 SC-13",
                bsi="APP.3.2.A11 CON.1.A1", bsi_pp="KONF.14.1.1", atlas="AML.M0012",
                gdpr="32(1)(a)",
            ),
            _control(
                "rate_limit", "Requests are limited per key and per address", "high",
                "Set gateway_limit_per_key and gateway_limit_per_address, and apply gateway.",
                llm="LLM10", api="API4", cis="5.2.4 5.2.5", nist="SC-5 SC-5(2) SC-6",
                bsi_pp="KONF.15.3", atlas="AML.T0029 AML.T0034 AML.M0004", gdpr="32(1)(b)",
            ),
            _control(
                "audit_log", "Every request leaves a record that cannot be changed unseen", "high",
                "Apply the role key_validator with key_validator_audit_log on.",
                cis="3.1 3.2 3.3 3.4 3.7",
                nist="AU-2 AU-3 AU-5 AU-8 AU-9 AU-9(3) AU-10 AU-11 AU-12",
                bsi="SYS.1.1.A10 APP.3.2.A4 OPS.1.1.5.A3", bsi_pp="DET.3.1.7 DET.3.5",
                atlas="AML.M0024", gdpr="25",
            ),
            _control(
                "network_isolation", "Only the application servers reach the gateway", "medium",
                "Set firewall_app_servers and apply the role firewall.",
                api="API8 API7", nist="SC-7 SC-7(5) SC-7(21) AC-4", bsi="SYS.1.1.A19 NET.3.2.A2",
                bsi_pp="KONF.7.15 ARCH.2.2.9", atlas="AML.T0049 AML.T0025 AML.T0072",
                gdpr="32(1)(b)",
            ),
            _control(
                "service_sandbox", "The services run confined and without privileges", "medium",
                "Apply the roles service_sandbox and key_validator.",
                llm="LLM03 LLM06", cis="2.2.1", nist="SC-39 AC-6", bsi="SYS.1.3.A10 SYS.1.3.A16",
                bsi_pp="KONF.6.1.2 KONF.7.13", atlas="AML.T0011 AML.T0018 AML.T0105",
            ),
            _control(
                "management_routes", "Models cannot be pulled, pushed or deleted from outside",
                "high", "Apply the role gateway with its default endpoint classes.",
                llm="LLM03 LLM04", api="API5 API9", nist="AC-3 AC-6 CM-7",
                bsi_pp="KONF.6.7 ARCH.5.1.6", atlas="AML.T0010 AML.T0018 AML.T0031",
            ),
            _control(
                "secrets_at_rest", "Keys are stored as hashes, private keys are root's alone",
                "high", "Apply the roles pki and key_validator; issue new keys for those found.",
                llm="LLM02", api="API2", cis="4.1.3", nist="SC-28(1) IA-5 SC-12",
                bsi="APP.3.1.A14", bsi_pp="KONF.1.5 KONF.11.8",
                atlas="AML.T0055 AML.T0083 AML.M0012", gdpr="32(1)(a)",
            ),
            _control(
                "versions", "No program with a known hole serves requests", "high",
                "Install the distribution's security updates, and a newer release of the LLM "
                "server (ollama_version).",
                llm="LLM03", api="API8", nist="SI-2 RA-5", bsi="OPS.1.1.3.A15",
                atlas="AML.T0049 AML.T0010", gdpr="32(1)(d)",
            ),
            _control(
                "budget", "What a key may use has an end", "medium",
                "Give keys a tier of key_validator_tiers with requests_per_day, max_output_tokens "
                "and max_prompt_characters.",
                llm="LLM10", api="API4 API6", nist="SC-5 SC-6", bsi_pp="KONF.15 DET.4.17",
                atlas="AML.T0034 AML.T0048 AML.T0008",
            ),
        )
    )
)  # fmt: skip
