# SPDX-License-Identifier: GPL-3.0-or-later
"""./dev bench NAME: measurements. They print figures and write JSON.

Only `firewall` fails, above its goal: it counts processor time, whatever else runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.bench import assess, audit, firewall, gateway, harden
from tests.lab.steps import LabError

BENCHES: dict[str, Callable[[list[str]], int | None]] = {
    "assess": assess.main,
    "audit": audit.main,
    "firewall": firewall.main,
    "gateway": gateway.main,
    "harden": harden.main,
}


def main(words: list[str]) -> int:
    if not words or words[0] not in BENCHES:
        print(f"usage: ./dev bench {' | '.join(BENCHES)}", file=sys.stderr)
        return 2
    return BENCHES[words[0]](words[1:]) or 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"./dev bench: {error}")
