# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One report over many hosts: findings in, verdict and files out. Runs on the control node only.

`report` puts findings, waivers and an earlier report together into one dictionary, which is what
report.json holds (docs/schemas/report.schema.json); `gate` judges it; each other format is made
from that dictionary alone by the file of its name. Nothing here reads or writes a file, except
that `html` reads its style sheet and script from assets/.
"""
