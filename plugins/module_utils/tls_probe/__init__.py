# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TLS server takes, found with hand-built hellos over plain sockets.

Python's ssl and the openssl program obey the local policy: "TLS 1.0 was refused" may be their own
refusal. So hellos are built (client_hello) and answers read (server_reply) by our own code. Only
what is behind encryption is looked at through Python's ssl, and only where it succeeds (visit).
Pure but for `connection` and `visit`; `survey` says what to ask, tls_checks judges the answers.
"""
