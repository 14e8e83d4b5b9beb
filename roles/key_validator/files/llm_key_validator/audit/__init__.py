# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: JSON lines in a hash chain with forward-secure seals."""
