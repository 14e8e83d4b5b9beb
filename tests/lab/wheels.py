# SPDX-License-Identifier: GPL-3.0-or-later
"""How pip is told to fetch wheels for a host's Python instead of its own."""

from __future__ import annotations

import platform

# Debian 12 has glibc 2.36.
_GLIBC = range(17, 37)


def for_hosts(python: str) -> list[str]:
    """pip's words for wheels that Debian 12 and 13 take, for this Python (`3.11`)."""
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)]
    return [
        "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp",
        f"--python-version={python}", *platforms, f"--platform=manylinux2014_{machine}",
    ]  # fmt: skip
