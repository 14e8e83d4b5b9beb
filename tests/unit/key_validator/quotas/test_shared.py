# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared counters when things go wrong: whatever it is, no request passes uncounted."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import time
import traceback
import typing as t
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from llm_key_validator.quotas import QuotaStoreError
from llm_key_validator.quotas.admission import DAY, Admission
from llm_key_validator.tiers import Tier

from ..test_server import CONTEXT, Host
from .conftest import LEASE, PASSWORD, Server, made

pytest.importorskip("redis", reason="the Python library redis is not installed")

import redis
from llm_key_validator.quotas.shared import PREFIX, SharedQuotas
from redis.asyncio import Connection

TIER = Tier("a", requests_per_minute=60, burst=9, requests_per_day=99, parallel_requests=3)
DAYS = timedelta(days=1)
REQUEST = "0123456789abcdef" * 2
Make = t.Callable[..., SharedQuotas]


@pytest.fixture
def make(runner: asyncio.Runner) -> t.Iterator[Make]:
    """Make quotas that are closed at the end."""
    opened: list[SharedQuotas] = []

    def make_one(socket: Path, password: str = "") -> SharedQuotas:
        quotas = runner.run(made(lambda: SharedQuotas(f"unix://{socket}", password, LEASE)))
        opened.append(quotas)
        return quotas

    yield make_one
    for quotas in opened:
        runner.run(quotas.close())


@pytest.fixture
def quotas(make: Make, server: Server, runner: asyncio.Runner) -> SharedQuotas:
    """The store with its own clock, empty."""
    one = make(server.socket, PASSWORD)
    runner.run(one._store.flushall())
    return one


async def refused_by(quotas: SharedQuotas, request_id: str = REQUEST) -> QuotaStoreError:
    with pytest.raises(QuotaStoreError) as caught:
        await quotas.admit("app1", TIER, request_id, 0.0)
    return caught.value


async def admitted_by(quotas: SharedQuotas, request_id: str = REQUEST) -> Admission:
    return await quotas.admit("app1", TIER, request_id, 0.0)


def test_the_clock_is_the_stores_own(quotas: SharedQuotas, runner: asyncio.Runner) -> None:
    before = int(time.time() * 1_000_000)
    assert runner.run(admitted_by(quotas)) == Admission(True, "", 0, 10, 9, 1)
    after = int(time.time() * 1_000_000)
    counts = runner.run(quotas._store.hgetall(f"{PREFIX}{{app1}}:counts"))
    assert before <= int(counts[b"arrival"]) - 1_000_000 <= after
    assert int(counts[b"day"]) in (before // DAY, after // DAY)


def test_everything_is_forgotten_by_itself(quotas: SharedQuotas, runner: asyncio.Runner) -> None:
    async def look() -> dict[str, float]:
        for tier in (TIER, Tier("b", requests_per_minute=60), Tier("c", parallel_requests=2)):
            await quotas.admit(tier.name, tier, REQUEST, 0.0)
        names = [name async for name in quotas._store.scan_iter()]
        return {name.decode(): await quotas._store.pttl(name) / 1000 for name in names}

    entries = runner.run(look())
    assert all(name.startswith(PREFIX) for name in entries)
    slots = {f"{PREFIX}{{{key}}}:slots": LEASE + 60 for key in "ac"}
    longest = {f"{PREFIX}{{a}}:counts": 86460, f"{PREFIX}{{b}}:counts": 61, **slots}
    assert entries.keys() == longest.keys()
    assert all(0 < seconds <= longest[name] for name, seconds in entries.items())


def test_many_at_once_get_no_more_than_one_by_one(
    quotas: SharedQuotas, runner: asyncio.Runner
) -> None:
    async def storm() -> tuple[list[bool], int]:
        asked = [admitted_by(quotas, f"{number:032x}") for number in range(300)]
        admissions = await asyncio.gather(*asked)
        clients = await quotas._store.client_list()
        return [one.allowed for one in admissions], len(clients)

    allowed, clients = runner.run(storm())
    assert allowed.count(True) == 3
    assert clients <= 64


def test_a_store_that_forgot_the_script_is_taught_again(
    quotas: SharedQuotas, runner: asyncio.Runner
) -> None:
    for left in (9, 8):
        runner.run(quotas._store.script_flush())
        assert runner.run(admitted_by(quotas)).remaining == left


def test_a_restarted_store_serves_again(
    quotas: SharedQuotas, runner: asyncio.Runner, server: Server
) -> None:
    assert runner.run(admitted_by(quotas)).allowed
    server.stop()
    try:
        runner.run(refused_by(quotas))
    finally:
        server.start()
    assert runner.run(admitted_by(quotas)).allowed


def test_a_hung_store_refuses_within_a_second(
    quotas: SharedQuotas, runner: asyncio.Runner, server: Server
) -> None:
    async def storm() -> None:
        await asyncio.gather(*(refused_by(quotas, f"{number:032x}") for number in range(200)))

    assert runner.run(admitted_by(quotas)).allowed
    server.process.send_signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        runner.run(storm())
        assert 0.9 <= time.monotonic() - begin < 3
    finally:
        server.process.send_signal(signal.SIGCONT)
    # The store did get what was asked before.
    assert runner.run(admitted_by(quotas, REQUEST)).allowed


def test_a_hung_store_keeps_no_places(
    quotas: SharedQuotas, runner: asyncio.Runner, server: Server
) -> None:
    async def places() -> int:
        return int(await quotas._store.zcard(f"{PREFIX}{{app1}}:slots"))

    async def hang() -> None:
        # Two connections, so that what is asked reaches the store while it hangs
        await asyncio.gather(*(admitted_by(quotas, word * 32) for word in "ab"))
        server.process.send_signal(signal.SIGSTOP)
        quotas.release("app1", "a" * 32)
        await refused_by(quotas, "c" * 32)
        await asyncio.sleep(0.1)
        quotas.sweep(0.0)
        await asyncio.sleep(1.1)
        server.process.send_signal(signal.SIGCONT)
        while not await asyncio.wait_for(quotas._store.ping(), 5):
            pass
        quotas.sweep(0.0)
        await asyncio.gather(*quotas._releases)

    try:
        runner.run(hang())
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert runner.run(places()) == 1, "only the one that is still under way"


def test_places_are_given_back_to_a_store_that_was_away(
    quotas: SharedQuotas, runner: asyncio.Runner
) -> None:
    async def work() -> None:
        assert (await admitted_by(quotas)).allowed
        name = f"{PREFIX}{{app1}}:slots"
        await quotas._store.rename(name, "aside")
        await quotas._store.set(name, "an error for whoever removes a place")
        quotas.release("app1", REQUEST)
        await asyncio.gather(*quotas._releases)
        await quotas._store.rename("aside", name)
        quotas.sweep(0.0)
        await asyncio.gather(*quotas._releases)
        assert await quotas._store.zcard(name) == 0
        assert not quotas._owed

    runner.run(work())


def test_a_replica_that_may_not_write_refuses(quotas: SharedQuotas, runner: asyncio.Runner) -> None:
    assert runner.run(admitted_by(quotas)).allowed
    runner.run(quotas._store.execute_command("REPLICAOF", "127.0.0.1", "1"))
    try:
        error = runner.run(refused_by(quotas))
        assert str(error) in ("ReadOnlyError", "ResponseError")
    finally:
        runner.run(quotas._store.execute_command("REPLICAOF", "NO", "ONE"))
    assert runner.run(admitted_by(quotas)).allowed


@pytest.mark.parametrize("entry", ["counts", "slots"])
def test_an_entry_that_is_somebody_elses_refuses(
    quotas: SharedQuotas, runner: asyncio.Runner, entry: str
) -> None:
    name = f"{PREFIX}{{app1}}:{entry}"
    runner.run(quotas._store.set(name, "something"))
    runner.run(refused_by(quotas))
    assert runner.run(quotas._store.keys("*")) == [name.encode()], "something was counted"


def test_a_store_without_memory_refuses(quotas: SharedQuotas, runner: asyncio.Runner) -> None:
    runner.run(quotas._store.config_set("maxmemory", "1"))
    try:
        runner.run(refused_by(quotas))
    finally:
        runner.run(quotas._store.config_set("maxmemory", "0"))
    assert runner.run(admitted_by(quotas)).allowed


@pytest.mark.parametrize("password", ["", "a wrong password"])
def test_the_password_is_nowhere_to_be_read(
    make: Make, server: Server, runner: asyncio.Runner, password: str
) -> None:
    error = runner.run(refused_by(make(server.socket, password)))
    shown = "".join(traceback.format_exception(error))
    assert "a wrong password" not in shown


def test_no_representation_holds_the_password(make: Make, tmp_path: Path) -> None:
    quotas = make(tmp_path / "nobody.sock", PASSWORD)
    for thing in (quotas, quotas._store, quotas._store.connection_pool):
        assert PASSWORD not in repr(thing)
        assert PASSWORD not in str(thing)


def test_nobody_there(make: Make, tmp_path: Path, runner: asyncio.Runner) -> None:
    quotas = make(tmp_path / "nobody.sock")
    assert str(runner.run(refused_by(quotas))) == "ConnectionError"

    async def release() -> None:
        quotas.release("app1", REQUEST)
        quotas.sweep(0.0)

    runner.run(release())


@asynccontextmanager
async def impostor(reply: bytes, **where: t.Any) -> t.AsyncIterator[int]:
    """Something that answers each command with the same bytes. Its port, if it has one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                writer.write(reply)
                if not reply:
                    break
        finally:
            writer.close()

    listen = asyncio.start_unix_server if "path" in where else asyncio.start_server
    server = await listen(answer, **where)
    try:
        name = server.sockets[0].getsockname()
        yield 0 if isinstance(name, str) else name[1]
    finally:
        server.close()


def reply_of(*parts: str) -> bytes:
    bulk = "".join(f"${len(part)}\r\n{part}\r\n" for part in parts)
    return f"*{len(parts)}\r\n{bulk}".encode()


GOOD_REPLY = reply_of(REQUEST, "", "1795392000000000", "0", "0")


@pytest.mark.parametrize(
    ("reply", "passes"),
    [
        (GOOD_REPLY, True),
        (reply_of("f" * 32, "", "1795392000000000", "0", "0"), False),
        (reply_of(REQUEST, "sure", "1795392000000000", "0", "0"), False),
        (reply_of(REQUEST, "", "now", "0", "0"), False),
        (reply_of(REQUEST, "", "1795392000000000", "0"), False),
        (reply_of(), False),
        (b"+OK\r\n", False),
        (b":1\r\n", False),
        (b"$-1\r\n", False),
        (b"*-1\r\n", False),
        (b"*5\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n", False),
        (b"-ERR something\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\n", False),
        (b"*x\r\n", False),
        (b"$5\r\n\xff", False),
        (b"", False),
    ],
)
def test_only_the_right_answer_counts(
    make: Make, tmp_path: Path, runner: asyncio.Runner, reply: bytes, passes: bool
) -> None:
    quotas = make(tmp_path / "s")
    without_greetings(quotas)

    async def ask() -> None:
        async with impostor(reply, path=tmp_path / "s"):
            if passes:
                assert (await admitted_by(quotas)).allowed
            else:
                await refused_by(quotas)
            await quotas.close()

    runner.run(ask())


def without_greetings(quotas: SharedQuotas) -> None:
    """Newer versions of the library introduce themselves, which an impostor does not expect."""
    if hasattr(Connection(), "lib_name"):
        settings = quotas._store.connection_pool.connection_kwargs
        settings.update(lib_name=None, lib_version=None)


def certificate_for(name: str, folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + 9 * DAYS)
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    written = folder / "certificate.pem", folder / "key.pem"
    written[0].write_bytes(signed.public_bytes(Encoding.PEM))
    written[1].write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
    return written


@pytest.mark.parametrize(
    ("name", "trusted"), [("localhost", True), ("localhost", False), ("elsewhere", True)]
)
def test_tls_asks_for_the_right_certificate(
    tmp_path: Path,
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    trusted: bool,
) -> None:
    certificate, key = certificate_for(name, tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def ask() -> None:
        async with impostor(GOOD_REPLY, host="127.0.0.1", ssl=context) as port:
            quotas = SharedQuotas(f"rediss://localhost:{port}", "", LEASE)
            without_greetings(quotas)
            if trusted and name == "localhost":
                assert (await admitted_by(quotas)).allowed
            else:
                await refused_by(quotas)
            await quotas.close()

    runner.run(ask())


def test_a_request_that_is_given_up_does_not_get_another_ones_answer(
    quotas: SharedQuotas, runner: asyncio.Runner
) -> None:
    async def storm() -> None:
        for number in range(200):
            task = asyncio.ensure_future(quotas.admit("b", TIER, f"{number:032x}", 0.0))
            for _unused in range(number % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for _unused in range(70):
            assert (await quotas.admit("c", Tier("free"), REQUEST, 0.0)).allowed

    runner.run(storm())


def test_what_was_released_at_the_end_is_released(
    make: Make, server: Server, runner: asyncio.Runner, quotas: SharedQuotas
) -> None:
    other = make(server.socket, PASSWORD)
    one_place = Tier("a", parallel_requests=1)

    async def work() -> None:
        assert (await other.admit("app1", one_place, "r1", 0.0)).allowed
        other.release("app1", "r1")
        await other.close()
        assert (await quotas.admit("app1", one_place, "r2", 0.0)).allowed

    runner.run(work())


def test_the_service_gives_back_on_its_way_out(server: Server, tmp_path: Path) -> None:
    with redis.Redis(unix_socket_path=str(server.socket), password=PASSWORD) as store:
        slots, request_id = f"{PREFIX}{{app2}}:slots", CONTEXT["X-Gateway-Request"].split()[0]
        store.zadd(slots, {request_id: 2**60})
        with closing(Host(tmp_path)) as host:
            (tmp_path / "audit/credentials/counters-password").write_text(PASSWORD)
            host.configure(counters_url=f"unix://{server.socket}")
            host.start()
            assert host.process is not None
            host.process.send_signal(signal.SIGSTOP)
            report = f"<190>Nov 23 20:31:20 llm: {request_id} 200 7 0.5 1 app2 ::1 POST /api/chat"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nginx:
                nginx.sendto(report.encode(), host.reports.getsockname())
            host.process.send_signal(signal.SIGTERM)
            assert host.end(signal.SIGCONT) == 0
        assert store.zcard(slots) == 0
