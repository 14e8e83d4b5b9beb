# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings: strict, and the same everywhere they are written down."""

from __future__ import annotations

import json
import typing as t
from dataclasses import asdict, fields

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.config import Config, ConfigError, LlmServer, load_config

from .conftest import FILES


def test_an_empty_object_means_the_defaults() -> None:
    assert load_config("{}") == Config()


SERVER = asdict(LlmServer())
TLS = {"name": "llm.example.com", "ca": "/ca.pem"}


def test_every_default_is_acceptable() -> None:
    tiers = {"standard": {}}
    settings = {**asdict(Config()), "routes": [], "tiers": tiers}
    assert load_config(json.dumps(settings)) == Config()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"max_header": 100}, "max_header"),
        ({"max_headers": "100"}, "max_headers"),
        ({"max_headers": True}, "max_headers"),
        ({"max_headers": 20.5}, "max_headers"),
        ({"max_headers": 0}, "max_headers"),
        ({"request_timeout_seconds": 1e9}, "request_timeout_seconds"),
        ({"registry_path": "keys.json"}, "registry_path"),
        ({"trusted_users": "www-data"}, "trusted_users"),
        ({"trusted_users": [33]}, "trusted_users"),
        ({"routes": [{}]}, r"routes: \[0\]"),
        ({"tiers": {}}, "tiers"),
        ({"tiers": {"gold": {"burst": 1}}}, "tiers: gold.burst"),
        ({"default_tier": "gold"}, "default_tier"),
        ({"auth": "none"}, "auth: must be one of api_key, mtls"),
        ({"llm_server": {"name": "ollama"}}, "llm_server"),
        ({"llm_server": {**SERVER, "only_standard": "yes"}}, "llm_server: must be true or false"),
        ({"llm_server": {**SERVER, "key_file": "key"}}, "llm_server: must be an absolute path"),
        ({"llm_server": {**SERVER, "tls": {"name": "llm"}}}, "llm_server: tls must be"),
        ({"llm_server": {**SERVER, "tls": {"name": "a b", "ca": "/ca"}}}, "tls.name"),
        ({"llm_server": {**SERVER, "tls": {**TLS, "key": "/key"}}}, "tls.certificate"),
        ({"llm_server": {**SERVER, "models": ["Tiny"]}}, "llm_server: models must be canonical"),
        ({"llm_server": {**SERVER, "more_backends": "x:1"}}, "must be lists"),
        ({"llm_server": {**SERVER, "names_models": 1}}, "llm_server: must be true or false"),
        ({"audit_enabled": "no"}, "audit_enabled"),
        ({"audit_directory": "log"}, "audit_directory"),
        ({"audit_prompt_digest": "md5"}, "audit_prompt_digest"),
        ({"audit_sinks": ["journald"]}, "audit_sinks"),
        ({"audit_sinks": ["file", "mail"]}, "audit_sinks"),
        ({"audit_keep_files": -1}, "audit_keep_files"),
        ({"counters_url": "http://example.com"}, "counters_url"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, t.Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(json.dumps(settings))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"max_headers": 1e999}', "[" * 99999])
def test_what_is_no_settings_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(text)


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        load_config('{"max_headers": 20, "max_headers": 30}')


@given(st.text(), st.none() | st.booleans() | st.floats() | st.integers() | st.text())
def test_any_setting_is_taken_or_refused_by_name(name: str, value: t.Any) -> None:
    with pytest.raises(ConfigError):
        load_config(json.dumps({"x" + name: value}))


@given(
    st.sampled_from(sorted(asdict(Config()))),
    st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.text()),
)
def test_any_value_is_taken_or_refused(name: str, value: t.Any) -> None:
    try:
        load_config(json.dumps({name: value}))
    except ConfigError as error:
        assert name in str(error) or "JSON" in str(error)


# Settings that the role leaves as they are, and those that it makes of several variables
NOT_WRITTEN = {"lease_seconds", "answer_timeout_seconds", "max_buffered_bytes"}
MADE = {
    "auth",
    *("registry_path", "audit_directory", "audit_state_directory"),
    *("llm_server", "routes", "max_body_bytes"),
}


def test_the_roles_defaults_are_the_services() -> None:
    """One truth in two files: what the role writes when the user says nothing."""
    defaults = yaml.safe_load((FILES.parent / "defaults" / "main.yml").read_text())
    written = yaml.safe_load((FILES.parent / "vars" / "main.yml").read_text())
    names = {setting.name for setting in fields(Config)}
    assert set(written["__key_validator_config"]) == names - NOT_WRITTEN
    said = {name: defaults[f"key_validator_{name}"] for name in names - NOT_WRITTEN - MADE}
    said["counters_url"] = said["counters_url"] or ""
    # The role's tier has a ceiling, which the service knows nothing of.
    assert load_config(json.dumps({**said, "tiers": {"standard": {}}})) == Config()
    assert load_config(json.dumps(said)).tiers["standard"].max_keep_alive_seconds == 3600
