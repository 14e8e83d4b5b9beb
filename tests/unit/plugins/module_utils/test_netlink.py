# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import struct

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import netlink


def message(kind, status=0, flags=0):
    return struct.pack("=IHHIIi", 20, kind, flags, 1, 0, status)


def kinds(data):
    return [kind for kind, _payload in netlink._messages(data)]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, 0])
def test_an_error_is_no_empty_list(code):
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        kinds(message(2, -code))
    assert raised.value.errno == code


def test_an_interrupted_list_is_not_believed():
    with pytest.raises(InterruptedError):
        kinds(message(3, flags=0x10))
    assert kinds(message(16) + message(3)) == [16, 3]
    assert kinds(b"") == []


def test_attributes_are_taken_apart():
    nested = struct.pack("=HHBxxx", 5, 2, 1)
    data = struct.pack("=HH5sxxx", 9, 3, b"eth0\0") + struct.pack("=HH", 12, 43 | 0x8000) + nested
    found = netlink.attributes(data)
    assert found[3] == b"eth0\0"
    assert netlink.attributes(found[43]) == {2: b"\1"}
