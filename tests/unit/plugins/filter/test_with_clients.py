# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.filter.with_clients import FilterModule
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import parse_record

with_clients = FilterModule().filters()["with_clients"]
KEY = {"id": "app", "owner": "Team", "sha256": "ab" * 32}
FINGERPRINTS = {"app": ["cd" * 32], "batch": ["ef" * 32, "01" * 32]}


def test_a_client_is_a_record_or_a_keys_owner() -> None:
    clients = [{"id": "app"}, {"id": "batch", "owner": "Batch", "models": ["tiny"]}]
    assert with_clients([KEY], clients, FINGERPRINTS) == [
        {**KEY, "certificate_sha256": ["cd" * 32]},
        {
            "id": "batch",
            "owner": "Batch",
            "models": ["tiny"],
            "certificate_sha256": ["ef" * 32, "01" * 32],
        },
    ]


def test_a_fingerprint_of_ones_own_counts() -> None:
    client = {"id": "batch", "certificate_sha256": "23" * 32}
    assert with_clients([], [client], FINGERPRINTS) == [{**client, "owner": "batch"}]


def test_before_there_are_certificates_a_client_is_a_record_that_nobody_can_use() -> None:
    first, second = with_clients([], [{"id": "a"}, {"id": "b"}], {})
    assert parse_record(first, "keys[0]").certificates != parse_record(second, "x").certificates


def test_a_client_that_is_there_twice() -> None:
    with pytest.raises(AnsibleFilterError, match="client app is there twice"):
        with_clients([], [{"id": "app"}, {"id": "app"}], {})
