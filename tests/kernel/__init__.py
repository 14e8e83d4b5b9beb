# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall evaluator against the real kernel: random rule sets, real packets.

`./dev test kernel` runs a few hundred cases, `./dev test kernel --nightly` thousands.
"""
