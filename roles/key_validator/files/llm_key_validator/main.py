# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: serve, or check a file without serving."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .config import Config, ConfigError, load_config
from .journal import Journal, Level
from .registry import RegistryError, load_registry

# EX_CONFIG of sysexits.h
_BAD_CONFIG = 78


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit status."""
    parser = argparse.ArgumentParser(prog="llm-key-validator", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--config", metavar="FILE", help="serve with these settings")
    action.add_argument("--check-config", metavar="FILE", help="check settings (- for stdin)")
    action.add_argument("--check-registry", metavar="FILE", help="check keys (- for stdin)")
    action.add_argument(
        "--check-input",
        action="store_true",
        help="check {config, registry} on stdin, as the role does before it changes anything",
    )
    options = parser.parse_args(arguments)
    if options.check_input:
        return _check("-", _load_input)
    if options.check_config:
        return _check(options.check_config, load_config)
    if options.check_registry:
        return _check(options.check_registry, load_registry)
    return _serve(options.config)


def _check(source: str, load: Callable[[str], object]) -> int:
    """Load the file and say, in one line without secrets, what is wrong with it."""
    try:
        load(_read(source))
    except (ConfigError, RegistryError) as error:
        sys.stdout.write(f"{error}\n")
        return 1
    except (OSError, UnicodeDecodeError) as error:
        sys.stdout.write(f"cannot be read: {type(error).__name__}\n")
        return 1
    return 0


def _load_input(text: str) -> None:
    """Load what both files will hold."""
    wanted = json.loads(text)
    config = load_config(json.dumps(wanted["config"]))
    registry = load_registry(json.dumps(wanted["registry"]))
    for index, record in enumerate(registry):
        if record.tier is not None and record.tier not in config.tiers:
            raise RegistryError(f"keys[{index}].tier: is not among the tiers")


def _read(source: str) -> str:
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    return content.decode("utf-8")


def _serve(config_file: str) -> int:
    # Until the service listens to them: their default is to end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    journal = Journal(_write_line, with_levels="JOURNAL_STREAM" in os.environ)
    try:
        config = load_config(_read(config_file))
        _run(config, journal)
    except ConfigError as error:
        journal.say(Level.ERROR, "config_refused", problem=str(error))
        return _BAD_CONFIG
    except (OSError, UnicodeDecodeError) as error:
        journal.say(Level.ERROR, "failed", problem=type(error).__name__)
        return 1
    return 0


def _run(config: Config, journal: Journal) -> None:
    # Late: checking a file must work where uvloop and httptools are not installed, such as
    # on the control node.
    import uvloop  # noqa: PLC0415

    from .server import Notifier, Server, environment, inherited_sockets  # noqa: PLC0415

    variables = environment()
    sockets = inherited_sockets(variables, os.getpid())

    async def serve() -> None:
        await Server(config, journal, Notifier(variables), variables).run(sockets)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _write_line(line: str) -> None:
    """One write for each line: two processes' lines never mix."""
    with suppress(OSError):  # a journal that is gone must not stop the answers
        os.write(2, line.encode())
