# SPDX-License-Identifier: GPL-3.0-or-later
"""The LLM gateway's key validator: nginx asks it, for each request, whether the key is good.

Two layers that never mix. Decisions are pure: ``keys`` (format and records), ``registry`` (all
records), ``decision`` (who is this, and is it allowed), ``peers`` (who asks). The edge does
the input and output: ``service`` and ``http_edge`` (answers, HTTP), ``store`` (the registry's
file), ``server`` and ``main``.
"""
