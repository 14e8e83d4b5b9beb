# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold servers against a Mozilla profile with sslyze. Run by the Python of sslyze's environment.

    python sslyze_check.py PROFILE CA_FILE NAME=ADDRESS...

Prints one JSON object: what each server does not comply with, by its name; empty when it does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
)
from sslyze.mozilla_tls_profile import tls_config_checker as mozilla


def main(profile: str, ca_file: str, *servers: str) -> None:
    wanted = mozilla.MozillaTlsConfiguration.get(mozilla.TlsConfigurationEnum(profile))
    trust = CertificateInfoExtraArgument(custom_ca_file=Path(ca_file))
    extra = ScanCommandsExtraArguments(certificate_info=trust)
    scanner = Scanner()
    scanner.queue_scans([
        ServerScanRequest(
            ServerNetworkLocation(name, 443, ip_address=address),
            scan_commands=set(mozilla.SCAN_COMMANDS_NEEDED_BY_MOZILLA_CHECKER),
            scan_commands_extra_arguments=extra,
        )
        for name, _equals, address in (server.partition("=") for server in servers)
    ])  # fmt: skip
    found = {}
    for result in scanner.get_results():
        name = result.server_location.hostname
        found[name] = {}
        if result.scan_status is not ServerScanStatusEnum.COMPLETED:
            found[name] = {"scan": "the server could not be scanned"}
            continue
        try:
            mozilla.check_server_against_tls_configuration(result, wanted)
        except mozilla.ServerNotCompliantWithTlsConfiguration as error:
            found[name] = error.issues
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
