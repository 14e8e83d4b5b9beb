# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.filter.network_problems import FilterModule

problems = FilterModule().filters()["network_problems"]


def test_good_ones():
    assert problems(["192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "::1"]) == []


@pytest.mark.parametrize(
    "item", ["10.0.0.300", "llm.example.com", "10.0.0.1/8", "::1/129", "", 7.5]
)
def test_bad_ones(item):
    found = problems(["192.0.2.1", item])
    assert len(found) == 1
    assert found[0].startswith(str(item))
