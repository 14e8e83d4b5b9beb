# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters pass on what module_utils/certificates.py says, errors as Ansible's own."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.filter.certificate_problems import (
    FilterModule as CertificateProblems,
)
from ansible_collections.llmsec.hardening.plugins.filter.crl_problems import (
    FilterModule as CrlProblems,
)
from ansible_collections.llmsec.hardening.plugins.filter.request_problems import (
    FilterModule as RequestProblems,
)
from ansible_collections.llmsec.hardening.plugins.filter.subject_alt_names import (
    FilterModule as SubjectAltNames,
)


def test_subject_alt_names() -> None:
    names = SubjectAltNames().filters()["subject_alt_names"]
    assert names(["a b", "a.b"], strict=False) == ["DNS:a.b"]
    with pytest.raises(AnsibleFilterError, match="'a b' is neither"):
        names(["a b"])


def test_certificate_problems_says_when_it_was_given_something_else() -> None:
    problems = CertificateProblems().filters()["certificate_problems"]
    with pytest.raises(AnsibleFilterError, match="not a result of x509_certificate_info"):
        problems({})


def test_request_problems() -> None:
    problems = RequestProblems().filters()["request_problems"]
    assert "it asks for a CA" in problems({}, ["a.b"])
    with pytest.raises(AnsibleFilterError, match="'a b' is neither"):
        problems({}, ["a b"])


def test_crl_problems() -> None:
    problems = CrlProblems().filters()["crl_problems"]
    old = {"last_update": "20200101000000Z", "next_update": "20200201000000Z"}
    assert problems(old) == ["it expired on 2020-02-01"]
    with pytest.raises(AnsibleFilterError, match="not a result of x509_crl_info"):
        problems({})
