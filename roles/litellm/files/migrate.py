# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply LiteLLM's migrations that a database does not have yet, as `prisma migrate deploy` does.

Usage: migrate.py VIRTUAL_ENVIRONMENT, with the database's address (postgresql://...) as its input.
Needs psql and nothing else: neither Node nor Prisma's schema engine is on a hardened host. Prints
how many were applied.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

# prisma/prisma-engines, schema-engine/connectors/sql-schema-connector: the ledger
LEDGER = """CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, finished_at TIMESTAMPTZ,
    migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0
);
SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL;
"""


def psql(script: str, url: str) -> str:
    """Run a script, or raise SystemExit with what the database said."""
    words = ["psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    done = subprocess.run(
        [*words, "--set=ON_ERROR_STOP=1"], input=script, text=True, capture_output=True,
        check=False, env={**os.environ, **connection(url)},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr.strip() or "psql failed")
    return done.stdout


def connection(url: str) -> dict[str, str]:
    """Return the URL as libpq's variables: an argument would show in the list of processes."""
    parts = urlsplit(url)
    found = {
        "PGHOST": parts.hostname or "", "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""), "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"), "PGCONNECT_TIMEOUT": "10",
        "PGOPTIONS": "-c client_min_messages=warning",
    }  # fmt: skip
    modes = {name: value for name, value in parse_qsl(parts.query) if name == "sslmode"}
    return found | ({"PGSSLMODE": modes["sslmode"]} if modes else {})


def step(folder: Path) -> str:
    """Return the psql commands that apply one migration and note it: both or neither.

    What PostgreSQL does outside of a transaction only is done so.
    """
    text = (folder / "migration.sql").read_bytes()
    digest, name = hashlib.sha256(text).hexdigest(), folder.name.replace("'", "''")
    begin, commit = ("", "") if b"CONCURRENTLY" in text.upper() else ("BEGIN;\n", "COMMIT;\n")
    return (
        f"{begin}{text.decode()}\n;\n"
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at,"
        f" applied_steps_count) VALUES ('{uuid.uuid4()}', '{digest}', '{name}', now(), 1);\n"
        f"{commit}"
    )


def main() -> None:
    """Apply what is missing, in the order of the names, which begin with a time."""
    url = sys.stdin.read().strip()
    found = sorted(Path(sys.argv[1]).glob("lib/*/site-packages/litellm_proxy_extras/migrations/*/"))
    if not found:
        raise SystemExit("the environment has no migrations of LiteLLM")
    known = psql(LEDGER, url).splitlines()
    missing = [folder for folder in found if folder.name not in known]
    if missing:
        psql("".join(map(step, missing)), url)
    print(f"{len(missing)} migrations applied")


if __name__ == "__main__":
    main()
