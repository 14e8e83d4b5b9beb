# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role litellm installs, refuses and tells a database; no host is needed for that."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import socket
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    MALICIOUS_RELEASES,
    get_server,
)

from tests.unit.refusals import refusals

ROLE = Path(__file__).parents[2] / "roles" / "litellm"
LOCK = (ROLE / "files/requirements.lock").read_text()
GOOD = {"model_name": "m", "litellm_params": {"model": "ollama/x", "api_base": "http://192.0.2.1"}}


def entry(**params: str) -> dict[str, t.Any]:
    return {"litellm_model_list": [{"model_name": "house", "litellm_params": params}]}


DATABASE = {"litellm_database_client": "client.tar"}

# What is wrong -> a word of the one sentence that says so; "" for what is not wrong.
CASES: dict[str, tuple[dict[str, t.Any], str]] = {
    "good": ({}, ""),
    "cloud": (entry(model="anthropic/claude"), ""),
    "no_models": ({"litellm_model_list": []}, "litellm_model_list is empty"),
    "no_address": (entry(model="ollama/x"), "house has no backend"),
    "no_provider": (entry(model="x", api_base="http://a"), "house has no backend"),
    "no_params": ({"litellm_model_list": [{"model_name": "house"}]}, "house has no backend"),
    "no_name": ({"litellm_model_list": [{}]}, "an entry without model_name has no backend"),
    "open_key": (
        entry(model="openai/x", api_base="http://a", api_key="SECRET"), "api_key stands in the open"
    ),
    "open_cloud_key": (
        entry(model="bedrock/x", aws_secret_access_key="SECRET", aws_session_token="SECRET"),
        "aws_secret_access_key, aws_session_token stands in the open",
    ),
    "open_address": (entry(model="openai/x", api_base="http://u:SECRET@a"), "in an api_base"),
    "prices": (entry(model="anthropic/x", input_cost_per_token="1", max_tokens="8"), ""),
    "own_secret": (
        {"litellm_secrets": {"LITELLM_MASTER_KEY": "SECRET", "NO_DOCS": "False", "K": "SECRET"}},
        "and LITELLM_MASTER_KEY, NO_DOCS is a setting of this role",
    ),
    "forbidden": ({"litellm_secrets": {"STORE_PROMPTS_IN_SPEND_LOGS": "True"}}, "STORE_PROMPTS"),
    "environment": (
        {"litellm_extra_config": {"environment_variables": {"NO_DOCS": "False"}}},
        "sets environment_variables, for which",
    ),
    "hidden_key": (entry(model="openai/x", api_base="http://a", api_key="os.environ/K_1"), ""),
    "master_key": ({"litellm_master_key": "SECRET-without-prefix"}, "must begin with sk-"),
    "short_key": ({"litellm_master_key": "sk-1"}, "16 or more"),
    "good_key": ({"litellm_master_key": "sk-SECRET0123456789"}, ""),
    "secrets": ({"litellm_secrets": {"K": "SECRET\nX=1", "k": "SECRET"}}, "that of k, K is not"),
    "langfuse": ({"litellm_success_callback": ["langfuse"]}, "langfuse, which needs"),
    "budget": ({"litellm_max_budget": 100}, "litellm_max_budget needs a database"),
    "lax": (
        {"litellm_extra_config": {"general_settings": {"allow_requests_on_db_unavailable": True}}},
        "allow_requests_on_db_unavailable",
    ),
    "lax_word": (
        {"litellm_extra_config": {"general_settings": {"allow_requests_on_db_unavailable": "yes"}}},
        "general_settings.allow_requests_on_db_unavailable: while the database is down",
    ),
    "around": (
        {
            "litellm_extra_config": {
                "model_list": [], "general_settings": {"master_key": "SECRET"},
                "router_settings": {"routing_strategy": "x", "timeout": 300},
            }
        },
        "sets model_list, general_settings.master_key, router_settings.routing_strategy, for which",
    ),
    "extra": ({"litellm_extra_config": {"general_settings": None, "a": {"timeout": 1}}}, ""),
    "malicious": ({"litellm_requirements": "1.82.8.lock"}, "1.82.8, which a thief"),
    "old": ({"litellm_requirements": "1.83.0.lock"}, "affected by CVE-2026-"),
    "loose": ({"litellm_requirements": "loose.lock"}, "with --hash=sha256: x==1 is not"),
    "option": ({"litellm_requirements": "option.lock"}, "with --hash=sha256: --index-url is not"),
    "missing": ({"litellm_wheelhouse": "no.tar"}, "has no no.tar"),
    "redis": ({"litellm_redis_url": "SECRET"}, "litellm_redis_url must look like"),
    "redis_nobody": (
        {"litellm_redis_url": "redis://:SECRET@127.0.0.1:1/0"},
        "nothing answers on 127.0.0.1 port 1:",
    ),
    "redis_twice": (
        {"litellm_redis_url": "redis://127.0.0.1:1", "litellm_install_redis": True},
        "set one of them",
    ),
    "database": (DATABASE | {"litellm_database_url": "SECRET"}, "litellm_database_url must look"),
    "database_nobody": (
        DATABASE | {"litellm_database_url": "postgresql://u:SECRET@127.0.0.1:1/n"},
        "nothing answers on 127.0.0.1 port 1:",
    ),
    "database_twice": (
        DATABASE | {"litellm_database_url": "x", "litellm_install_postgresql": True},
        "set one of them",
    ),
    "no_client": ({"litellm_database_url": "postgresql://a"}, "needs litellm_database_client"),
}  # fmt: skip


HASHED = f"litellm=={{}} \\\n    --hash=sha256:{'0' * 64}\n"
# Part of the checks -> when the role asks for it
PARTS = {
    "preflight_config": True,
    "preflight_install": True,
    "preflight_database": "litellm_database_url is defined",
    "preflight_redis": "litellm_redis_url is defined",
}
LOCKS = {
    "1.82.8": HASHED.format("1.82.8"),
    "1.83.0": HASHED.format("1.83.0"),
    "loose": f"{HASHED.format('1.108.7')}x==1 ; python_full_version < '4'\n",
    "option": f"--index-url http://a\n{HASHED.format('1.108.7')}",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str]:
    """What the role says of each case, all in one run, and everything that Ansible showed."""
    folder = tmp_path_factory.mktemp("cases")
    for name, text in LOCKS.items():
        (folder / f"{name}.lock").write_text(text)
    (folder / "client.tar").write_bytes(b"")
    usual = {"litellm_model_list": [GOOD]}
    hosts = {name: {**usual, **variables} for name, (variables, _word) in CASES.items()}
    return refusals(folder, "litellm", PARTS, hosts)


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_in_one_sentence(said: tuple[dict[str, str], str], case: str) -> None:
    word = CASES[case][1]
    text = said[0][case]
    assert word in text if word else text == ""


def test_no_refusal_shows_a_secret(said: tuple[dict[str, str], str]) -> None:
    assert "SECRET" not in said[1]


def test_everything_installed_has_a_hash_and_litellm_the_catalogues_version() -> None:
    pins = [line for line in LOCK.replace("\\\n", " ").splitlines() if line[:1] not in "# "]
    assert len(pins) > 100
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,-]+\])?==\S+ .*--hash=sha256:[0-9a-f]{64}", pin)
    (version,) = re.findall(r"^litellm==(\S+)", LOCK, re.MULTILINE)
    assert version == get_server("litellm").install_version
    assert version not in MALICIOUS_RELEASES["litellm"]


def test_the_role_refuses_the_malicious_releases_of_the_catalogue() -> None:
    internal = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    assert internal["__litellm_malicious"] == list(MALICIOUS_RELEASES["litellm"])


def load(name: str) -> t.Any:
    spec = importlib.util.spec_from_file_location(name, ROLE / f"files/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def migrate() -> t.Any:
    return load("migrate")


def test_a_password_reaches_psql_by_its_environment(migrate: t.Any) -> None:
    found = migrate.connection("postgresql://u:p%40x@db.example.com:5433/name?sslmode=require&a=b")
    assert found["PGPASSWORD"] == "p@x"
    assert (found["PGHOST"], found["PGPORT"], found["PGUSER"]) == ("db.example.com", "5433", "u")
    assert (found["PGDATABASE"], found["PGSSLMODE"]) == ("name", "require")


def test_a_migration_is_noted_as_prisma_notes_it(migrate: t.Any, tmp_path: Path) -> None:
    folder = tmp_path / "20250101000000_it's"
    folder.mkdir()
    (folder / "migration.sql").write_text("CREATE TABLE a ()")
    text = migrate.step(folder)
    assert text.startswith("BEGIN;\nCREATE TABLE a ()\n;\n")
    assert text.endswith("COMMIT;\n")
    assert hashlib.sha256(b"CREATE TABLE a ()").hexdigest() in text
    assert "'20250101000000_it''s'" in text
    alone = "CREATE INDEX CONCURRENTLY i ON a (b)"
    (folder / "migration.sql").write_text(alone)
    assert migrate.step(folder).startswith(alone)


def test_a_challenge_of_postgresql_is_answered_as_rfc_7677_says() -> None:
    answer = load("sign_in").scram_proof(
        "pencil",
        "n=user,r=rOprNGfwEbeRWgbNEkqO",
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    )
    assert answer.endswith(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")


# What a server says -> what is said of it
REDIS = {
    "redis://u:SECRET@": (b"+OK\r\n+PONG\r\n", ""),
    "redis://:SECRET@": (b"-WRONGPASS invalid pair\r\n", "lets nobody in: WRONGPASS invalid pair"),
    "redis://": (b"-NOAUTH Authentication required.\r\n", "lets nobody in: NOAUTH"),
    "postgresql://u:SECRET@": (b"NE\0\0\0\x0dMno such\0\0", "lets nobody in: no such"),
    "postgres://u:SECRET@": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "port"),
}


@pytest.mark.parametrize("address", REDIS)
def test_a_server_that_lets_nobody_in_is_told_from_one_that_does(address: str) -> None:
    spoken, word = REDIS[address]
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{address}127.0.0.1:{server.getsockname()[1]}/0"
        asked = subprocess.Popen(
            [sys.executable, str(ROLE / "files/sign_in.py")],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert asked.stdin
        asked.stdin.write(url)
        asked.stdin.close()
        asked.stdin = None
        link = server.accept()[0]
        with link:
            link.sendall(spoken)
            link.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: link.recv(4096), b""))
        _out, text = asked.communicate(timeout=60)
    assert (asked.returncode == 0) == (word == "")
    assert word in text
    assert "SECRET" not in text
    said = b"user\0u\0database\x000\0\0" if address.startswith("postgresql:") else b""
    assert said in heard
