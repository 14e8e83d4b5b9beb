# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge nginx's configuration by what it does to a request, wherever in it something stands.

`tree` knows nginx's rules of inheritance, `parts` finds the gateway in it, `expected` is what it
should be. One module for each subject yields what is wrong, `catalogue` gives these a name and a
remedy, `checks` puts all together. Nothing here touches a host (see gateway_host).
"""
