# SPDX-License-Identifier: GPL-3.0-or-later
"""A confined service is green; each way to undo it turns its finding red by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.service_checks import (
    Expected,
    Facts,
    Files,
    Process,
    judge,
    parse_show,
    slug,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_versions import (
    Packages,
    parse_policy,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    Fragment,
    make_wish,
    render,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

from tests.unit.plugins.guarded import by_id, red
from tests.unit.plugins.module_utils.test_service_versions import UPDATED

UNIT = "/etc/systemd/system/ollama.service"
OWN = "/etc/systemd/system/ollama.service.d/50-llm-hardening.conf"
LATER = "/etc/systemd/system/ollama.service.d/99-local.conf"
# As the role service_sandbox has it for Ollama
SANDBOX = {
    "AmbientCapabilities": "", "CapabilityBoundingSet": "", "DeviceAllow": ["char-drm rw"],
    "DevicePolicy": "closed", "LockPersonality": True, "MemoryDenyWriteExecute": True,
    "NoNewPrivileges": True, "PrivateDevices": False, "PrivateTmp": True, "ProcSubset": "all",
    "ProtectHome": "yes", "ProtectSystem": "strict", "BindPaths": None,
    "ReadWritePaths": ["/usr/share/ollama"], "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": True, "SystemCallArchitectures": "native",
    "SystemCallFilter": ["@system-service @resources", "~@privileged"], "UMask": "0077",
    "MemoryMax": "90%", "TasksMax": 4096, "LimitCORE": 0, "IPAddressDeny": "any",
    "IPAddressAllow": "localhost",
}  # fmt: skip
WISH = make_wish(
    {"Service": SANDBOX},
    {"OLLAMA_HOST": "127.0.0.1:11434", "OLLAMA_DEBUG": "0", "OLLAMA_MODELS": "/srv/50%"},
    ["OLLAMA_REMOTES", "OLLAMA_DEBUG_LOG_REQUESTS"],
)
EXPECTED = Expected(
    "ollama.service", WISH, user="ollama", server="ollama", dropin=OWN, packages=("nginx",)
)
MAIN = "[Service]\nUser=ollama\nExecStart=/usr/local/bin/ollama serve\nEnvironment=PATH=/bin\n"
SHOW = parse_show(f"""\
LoadState=loaded
ActiveState=active
UnitFileState=enabled
FragmentPath={UNIT}
DropInPaths={OWN}
NeedDaemonReload=no
ExecMainStartTimestamp=@1000
AmbientCapabilities=
CapabilityBoundingSet=
DeviceAllow=char-drm rw
DeviceAllow=/dev/null rw
DevicePolicy=closed
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=no
PrivateTmp=yes
ProcSubset=all
ProtectHome=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET6 AF_INET
RestrictNamespaces=yes
SystemCallFilter=_llseek _newselect accept
UMask=0077
MemoryMax=15032385536
TasksMax=4096
LimitCORE=0
IPAddressDeny=::/0 0.0.0.0/0
IPAddressAllow=127.0.0.0/8 ::1/128
""")
PROCESS = Process(
    ("ollama",) * 4,
    {
        "NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16,
        "CapAmb": "0" * 16, "Umask": "0077",
    },
    {**WISH.environment, "PATH": "/bin", "API_TOKEN": "hush-hush"},
    ("0", "0"),
    "ollama.service",
    ("ollama", "render", "video"),
    ("/usr/local/bin/ollama", "serve"),
)  # fmt: skip
FILES = Files(
    (Fragment(UNIT, MAIN), Fragment(OWN, render(WISH, "ours"))), written={UNIT: 10.0, OWN: 1000.9}
)
FACTS = Facts(
    SHOW, FILES, PROCESS, "0.35.0", packages=Packages(parse_policy(UPDATED), age=60)
)  # fmt: skip


def findings(facts=FACTS, expected=EXPECTED):
    return by_id(judge(expected, facts))


def reds(facts=FACTS, expected=EXPECTED):
    return {
        name.removeprefix("service.ollama."): result
        for name, result in red(judge(expected, facts)).items()
    }


def showing(**values):
    return {**SHOW, **values}


def with_file(path, text, **facts):
    """Return the facts with one more drop-in, which systemd has read."""
    files = replace(FILES, fragments=(*FILES.fragments, Fragment(path, text)))
    read = showing(DropInPaths=f"{OWN} {path}", **facts)
    return replace(FACTS, files=files, show=read)


def test_a_confined_service_is_green():
    found = findings()
    assert {one["result"] for one in found.values()} == {"pass"}
    named = {name.removeprefix("service.ollama.") for name in found}
    assert {
        "running", "enabled", "unit_file", "dropin", "reloaded", "restarted", "user", "version",
        "packages", "forbidden_environment", "environment.OLLAMA_HOST", "program", "preload",
        "loopholes",
    } <= named  # fmt: skip
    assert {f"directive.{key}" for key, value in SANDBOX.items() if value is not None} <= named
    assert "directive.BindPaths" not in named


# -- Sabotage --------------------------------------------------------------------------------------


def test_a_later_drop_in_that_rebinds():
    facts = with_file(LATER, "[Service]\nEnvironment=OLLAMA_HOST=0.0.0.0:11434\n")
    environment = {**PROCESS.environment, "OLLAMA_HOST": "0.0.0.0:11434"}
    restarted = replace(facts, process=replace(PROCESS, environment=environment))
    assert reds(facts) == {"environment.OLLAMA_HOST": "fail"}
    one = findings(restarted)["service.ollama.environment.OLLAMA_HOST"]
    assert (one["result"], one["control"], one["severity"]) == ("fail", "loopback", "high")
    assert f"OLLAMA_HOST=0.0.0.0:11434 from {LATER} (line 2)" in one["evidence"]
    assert len(one["evidence"]) == 2


def test_a_wrapper_that_changes_what_no_file_says():
    environment = {**PROCESS.environment, "OLLAMA_HOST": "0.0.0.0:80"}
    facts = replace(FACTS, process=replace(PROCESS, environment=environment))
    assert reds(facts) == {"environment.OLLAMA_HOST": "fail"}


def test_an_environment_file_that_wins():
    file = Fragment("/etc/default/ollama", "OLLAMA_HOST=[::]:11434\n")
    named = replace(
        FILES,
        fragments=(*FILES.fragments, Fragment(LATER, "[Service]\nEnvironmentFile=-/etc/default/o")),
        environment=(file,),
    )
    facts = replace(FACTS, files=named, show=showing(DropInPaths=f"{OWN} {LATER}"))
    assert reds(facts) == {"environment.OLLAMA_HOST": "fail"}


def test_request_logging():
    facts = with_file(
        LATER, "[Service]\nEnvironment=OLLAMA_DEBUG=2 OLLAMA_DEBUG_LOG_REQUESTS=1\n"
        "UnsetEnvironment=\n"
    )  # fmt: skip
    found = findings(facts)
    assert reds(facts) == {"environment.OLLAMA_DEBUG": "fail", "forbidden_environment": "fail"}
    for name in ("environment.OLLAMA_DEBUG", "forbidden_environment"):
        assert found[f"service.ollama.{name}"]["control"] == "secrets_at_rest"
        assert found[f"service.ollama.{name}"]["severity"] == "high"


def test_a_forbidden_variable_in_the_process_alone():
    environment = {**PROCESS.environment, "OLLAMA_REMOTES": "evil.example"}
    facts = replace(FACTS, process=replace(PROCESS, environment=environment))
    assert reds(facts) == {"forbidden_environment": "fail"}
    assert "evil.example" not in str(judge(EXPECTED, facts))


def test_values_of_other_variables_are_never_shown():
    for facts in (FACTS, replace(FACTS, process=replace(PROCESS, users=("root",) * 4))):
        assert "hush-hush" not in str(judge(EXPECTED, facts))


def test_root():
    facts = with_file(LATER, "[Service]\nUser=root\n")
    facts = replace(facts, process=replace(PROCESS, users=("root",) * 4))
    one = findings(facts)["service.ollama.user"]
    assert reds(facts) == {"user": "fail"}
    assert one["evidence"] == [f"User=root from {LATER} (line 2)", "its process runs as root"]
    saved = replace(FACTS, process=replace(PROCESS, users=("ollama", "ollama", "root", "ollama")))
    assert reds(saved) == {"user": "fail"}


def test_no_user_at_all_is_root():
    fragments = (Fragment(UNIT, "[Service]\nExecStart=/x\n"), FILES.fragments[1])
    facts = replace(FACTS, files=replace(FILES, fragments=fragments))
    assert findings(facts)["service.ollama.user"]["actual"] == "User=root"


@pytest.mark.parametrize(
    "line",
    [
        "BindPaths=/", "BindReadOnlyPaths=/etc/llm-gateway", "RootDirectory=/srv/other",
        "SupplementaryGroups=docker", "SupplementaryGroups=render shadow", "Group=root",
        "ExecStartPre=+/bin/sh -c true", "ExecStartPost=-!/bin/sh -c true",
        "PermissionsStartOnly=yes", "NetworkNamespacePath=/run/netns/other",
        "LoadCredential=x:/etc/shadow", "OpenFile=/etc/shadow", "Delegate=yes",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [UNIT, OWN, LATER])
def test_a_way_around_the_sandbox(line, path):
    files = {each.path: each.text for each in FILES.fragments} | {LATER: ""}
    files[path] = f"{files[path]}\n[Service]\n{line}\n"
    fragments = tuple(Fragment(name, text) for name, text in files.items())
    read = showing(DropInPaths=f"{OWN} {LATER}")
    facts = replace(FACTS, files=replace(FILES, fragments=fragments), show=read)
    assert reds(facts) == {"loopholes": "fail"}
    one = findings(facts)["service.ollama.loopholes"]
    assert (one["severity"], one["control"]) == ("high", "service_sandbox")
    assert one["actual"].startswith(f"{line} from {path}")


@pytest.mark.parametrize(
    "text",
    [
        "[Unit]\nAfter=network.target\n[Service]\nNice=5\nLimitNOFILE=65536\nCPUWeight=200\n",
        "[Service]\nExecStartPre=-/usr/bin/test -d /srv\nSupplementaryGroups=render video\n",
        "[Service]\nBindPaths=/srv\nBindPaths=\nDelegate=yes\nDelegate=no\n",
        "[Service]\nReadOnlyPaths=/srv\nTemporaryFileSystem=/var:ro\nRestartSec=9\n",
    ],
)
def test_a_harmless_drop_in(text):
    assert reds(with_file(LATER, text)) == {}


def test_a_group_that_the_user_was_put_into():
    facts = replace(FACTS, process=replace(PROCESS, groups=("ollama", "docker")))
    assert reds(facts) == {"loopholes": "fail"}
    assert "docker" in findings(facts)["service.ollama.loopholes"]["actual"]


def test_what_is_not_confined_has_no_way_around_it():
    facts = with_file(LATER, "[Service]\nBindPaths=/srv\n")
    assert "service.nginx.loopholes" not in by_id(judge(Expected("nginx.service"), facts))


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("ExecStart=\nExecStart=/usr/local/bin/wrapper", ("/bin/sh", "/usr/local/bin/wrapper")),
        ("ExecStart=\nExecStart=/bin/sh -c 'ollama serve'", PROCESS.command),
        ("ExecStart=\nExecStart=/usr/local/bin/ollama serve --more", PROCESS.command),
        ("Nice=1", ("/usr/bin/python3", "/root/relay.py")),
    ],
)
def test_another_program_in_its_place(line, command):
    facts = with_file(LATER, f"[Service]\n{line}\n")
    facts = replace(facts, process=replace(PROCESS, command=command))
    assert reds(facts) == {"program": "fail"}


def test_a_server_that_is_a_script():
    command = ("/usr/bin/python3", "/usr/local/bin/ollama", "serve")
    assert reds(replace(FACTS, process=replace(PROCESS, command=command))) == {}


def test_code_that_is_loaded_before_its_own():
    facts = with_file(LATER, "[Service]\nEnvironment=LD_PRELOAD=/srv/x.so\n")
    assert reds(facts) == {"preload": "fail"}
    environment = {**PROCESS.environment, "LD_AUDIT": "/srv/x.so"}
    facts = replace(FACTS, process=replace(PROCESS, environment=environment))
    assert reds(facts) == {"preload": "fail"}
    nginx = by_id(judge(Expected("ollama.service"), facts))
    assert nginx["service.ollama.preload"]["result"] == "fail"


def test_a_unit_file_that_is_not_as_it_was_installed():
    expected = replace(EXPECTED, text=f"# Ours\n{MAIN}")
    assert reds(expected=expected) == {}
    for text in (MAIN + "Nice=1\n", MAIN.replace("User=ollama\n", "User=ollama\nGroup=x\n")):
        fragments = (Fragment(UNIT, text), FILES.fragments[1])
        facts = replace(FACTS, files=replace(FILES, fragments=fragments))
        assert reds(facts, expected) == {"unit_file": "fail"}
    gone = (Fragment(UNIT, MAIN.replace("Environment=PATH=/bin\n", "")), FILES.fragments[1])
    facts = replace(FACTS, files=replace(FILES, fragments=gone))
    assert "Environment=PATH... is gone" in str(judge(expected, facts))


def test_no_finding_shows_a_variables_value():
    text = MAIN + "Environment=HTTPS_PROXY=http://me:hush@192.0.2.1\n"
    fragments = (Fragment(UNIT, text), FILES.fragments[1])
    command = ("/bin/sh", "-c", "TOKEN=hush exec ollama serve")
    facts = replace(
        FACTS, files=replace(FILES, fragments=fragments), process=replace(PROCESS, command=command)
    )
    found = str(judge(replace(EXPECTED, text=MAIN), facts))
    assert "Environment=HTTPS_PROXY... (line" in found
    assert "hush" not in found


def test_what_the_installed_unit_file_says_is_no_way_around():
    text = MAIN + "ExecReload=+/bin/kill -HUP $MAINPID\n"
    fragments = (Fragment(UNIT, text), FILES.fragments[1])
    facts = replace(FACTS, files=replace(FILES, fragments=fragments))
    assert reds(facts) == {"loopholes": "fail"}
    assert reds(facts, replace(EXPECTED, text=text)) == {}


def test_a_device_that_was_added_while_it_runs():
    shown = showing(DeviceAllow="char-drm rw /dev/null rw block-blkext rw")
    assert reds(replace(FACTS, show=shown)) == {"directive.DeviceAllow": "fail"}


@pytest.mark.parametrize(
    ("key", "line", "shown", "status"),
    [
        ("IPAddressDeny", "IPAddressDeny=", "", {}),
        ("IPAddressAllow", "IPAddressAllow=10.0.0.0/8", "10.0.0.0/8 127.0.0.0/8 ::1/128", {}),
        ("NoNewPrivileges", "NoNewPrivileges=no", "no", {"NoNewPrivs": "0"}),
        ("CapabilityBoundingSet", "CapabilityBoundingSet=CAP_NET_ADMIN", "cap_net_admin",
         {"CapBnd": "0000000000001000"}),
        ("SystemCallFilter", "SystemCallFilter=", "", {"Seccomp": "0"}),
        ("ProtectSystem", "ProtectSystem=full", "full", {}),
        ("ProtectHome", "ProtectHome=", "no", {}),
        ("RestrictAddressFamilies", "RestrictAddressFamilies=AF_PACKET",
         "AF_INET AF_INET6 AF_PACKET AF_UNIX", {}),
        ("UMask", "UMask=0022", "0022", {"Umask": "0022"}),
        ("MemoryMax", "MemoryMax=infinity", "infinity", {}),
        ("TasksMax", "TasksMax=infinity", "infinity", {}),
    ],
)  # fmt: skip
def test_a_later_drop_in_that_takes_a_directive_back(key, line, shown, status):
    facts = with_file(LATER, f"[Service]\n{line}\n", **{key: shown})
    broken = replace(PROCESS, status={**PROCESS.status, **status})
    restarted = replace(facts, process=broken)
    assert reds(restarted) == {f"directive.{key}": "fail"}
    # by the files alone, the manager's word alone, the process alone
    assert reds(replace(restarted, show={**facts.show, key: SHOW[key]}, process=PROCESS)) == {
        f"directive.{key}": "fail"
    }
    if key not in ("MemoryMax", "TasksMax"):
        assert reds(replace(FACTS, show=showing(**{key: shown}))) == {f"directive.{key}": "fail"}
    if status:
        assert reds(replace(FACTS, process=broken)) == {f"directive.{key}": "fail"}


def test_core_dumps_of_the_process():
    facts = replace(FACTS, process=replace(PROCESS, core_limits=("0", "unlimited")))
    assert reds(facts) == {"directive.LimitCORE": "fail"}


def test_an_effective_capability_is_seen_beside_an_empty_set():
    status = {**PROCESS.status, "CapEff": "0000000000000400"}
    facts = replace(FACTS, process=replace(PROCESS, status=status))
    assert reds(facts) == {"directive.CapabilityBoundingSet": "fail"}


@pytest.mark.parametrize(
    ("fragments", "links", "read", "what"),
    [
        (FILES.fragments[:1], {}, "", "is not there"),
        ((FILES.fragments[0], Fragment(OWN, "# nothing\n")), {}, OWN, "sets nothing"),
        ((FILES.fragments[0], Fragment(OWN, "")), {OWN: "/dev/null"}, OWN, "link to /dev/null"),
        ((FILES.fragments[0], Fragment("/run/systemd/system.control/ollama.service.d/"
                                       "50-llm-hardening.conf", "")), {}, "", "hides"),
    ],
)  # fmt: skip
def test_a_drop_in_that_is_not_in_force(fragments, links, read, what):
    files = replace(FILES, fragments=fragments, links=links)
    facts = replace(FACTS, files=files, show=showing(DropInPaths=read))
    one = findings(facts)["service.ollama.dropin"]
    assert one["result"] == "fail"
    assert what in one["actual"]
    # and so is nothing of what it set
    assert reds(facts)["directive.IPAddressDeny"] == "fail"
    assert reds(facts)["environment.OLLAMA_HOST"] == "fail"
    assert reds(facts)["directive.CapabilityBoundingSet"] == "fail"


def test_a_drop_in_that_systemd_has_not_read():
    facts = replace(FACTS, show=showing(DropInPaths=""))
    assert reds(facts) == {"dropin": "fail", "reloaded": "fail"}


@pytest.mark.parametrize(
    ("show", "files"),
    [
        (showing(NeedDaemonReload="yes"), FILES),
        (showing(DropInPaths=f"{OWN} {LATER}"), FILES),
        (SHOW, replace(FILES, fragments=(*FILES.fragments, Fragment(LATER, "[Unit]\nAfter=x\n")))),
    ],
)
def test_files_that_systemd_has_not_read_again(show, files):
    assert reds(replace(FACTS, show=show, files=files)) == {"reloaded": "fail"}


def test_an_empty_file_need_not_be_read():
    files = replace(FILES, fragments=(*FILES.fragments, Fragment(LATER, "# later\n")))
    assert reds(replace(FACTS, files=files)) == {}


def test_a_file_written_after_the_start():
    files = replace(FILES, written={UNIT: 10.0, OWN: 1001.0})
    facts = replace(FACTS, files=files)
    assert reds(facts) == {"restarted": "fail"}
    silent = replace(FACTS, show=showing(ExecMainStartTimestamp=""))
    assert reds(silent) == {"restarted": "error"}


@pytest.mark.parametrize(
    ("show", "files", "what"),
    [
        ({}, replace(FILES, hidden=("/usr/lib/systemd/system/ollama.service",)), "hides /usr/lib"),
        ({}, replace(FILES, loose=(f"{OWN} belongs to eve and has mode 0644",)), "eve"),
        ({"FragmentPath": "/run/systemd/transient/ollama.service"}, FILES, "by hand"),
        ({"FragmentPath": ""}, FILES, "by hand"),
    ],
)
def test_another_unit_file(show, files, what):
    facts = replace(FACTS, files=files, show=showing(**show))
    assert reds(facts) == {"unit_file": "fail"}
    assert what in findings(facts)["service.ollama.unit_file"]["actual"]


@pytest.mark.parametrize("state", ["disabled", "masked", "enabled-runtime", "transient", ""])
def test_a_unit_that_does_not_start_at_boot(state):
    facts = replace(FACTS, show=showing(UnitFileState=state))
    assert reds(facts) == {"enabled": "fail"}
    assert reds(facts, replace(EXPECTED, enabled=False)) == {}


@pytest.mark.parametrize("state", ["enabled", "static", "generated", "indirect"])
def test_a_unit_that_does(state):
    assert reds(replace(FACTS, show=showing(UnitFileState=state))) == {}


# -- What was not seen -----------------------------------------------------------------------------

NEEDS_PROCESS = {
    "running", "restarted", "user", "program",
    "environment.OLLAMA_HOST", "environment.OLLAMA_DEBUG", "environment.OLLAMA_MODELS",
    "forbidden_environment", "directive.NoNewPrivileges",
    "directive.CapabilityBoundingSet", "directive.AmbientCapabilities",
    "directive.SystemCallFilter", "directive.UMask", "directive.LimitCORE",
}  # fmt: skip


def test_a_service_that_is_down_is_not_measured():
    facts = replace(FACTS, show=showing(ActiveState="failed"), process=None)
    assert reds(facts) == dict.fromkeys(NEEDS_PROCESS, "error")


def test_a_process_that_may_not_be_read_is_not_measured():
    facts = replace(FACTS, process=Unread("denied"))
    assert reds(facts) == dict.fromkeys(NEEDS_PROCESS - {"restarted"}, "error")


def test_a_kernel_that_does_not_say_is_not_measured():
    facts = replace(FACTS, process=replace(PROCESS, status={}, core_limits=()))
    assert set(reds(facts).values()) == {"error"}
    assert set(reds(facts)) == {name for name in NEEDS_PROCESS if name.startswith("directive.")}


def test_what_is_wrong_without_a_process_is_wrong_all_the_same():
    facts = replace(with_file(LATER, "[Service]\nNoNewPrivileges=no\n"), process=None)
    assert reds(facts)["directive.NoNewPrivileges"] == "fail"


def test_files_that_cannot_be_read_are_not_measured():
    found = reds(replace(FACTS, files=Unread("denied")))
    assert set(found.values()) == {"error"}
    assert {"dropin", "reloaded", "unit_file", "user", "directive.ProtectSystem"} <= set(found)


@pytest.mark.parametrize(
    "show", [Unread("systemctl is not installed"), parse_show("LoadState=not-found\n"), {}]
)
def test_of_a_unit_that_is_not_there_no_more_is_said(show):
    facts = Facts(show, Unread("x"), None)
    assert reds(facts) == {"running": "error", "version": "error", "packages": "error"}
    assert reds(facts, Expected("ollama.service")) == {"running": "error"}


def test_a_masked_unit():
    shown = showing(LoadState="masked", ActiveState="inactive", UnitFileState="masked")
    facts = replace(FACTS, show=shown, process=None)
    found = reds(facts)
    assert (found["running"], found["enabled"], found["unit_file"]) == ("error", "fail", "fail")


def test_a_main_process_in_another_control_group():
    facts = replace(FACTS, process=replace(PROCESS, unit="session-1.scope"))
    assert reds(facts) == {"running": "fail"}


# -- Other units -----------------------------------------------------------------------------------


def test_a_socket_has_no_process_and_its_own_section():
    wish = make_wish({"Socket": {"IPAddressDeny": "any", "IPAddressAllow": "localhost"}}, {}, ())
    path = "/etc/systemd/system/llm-key-validator.socket"
    expected = Expected("llm-key-validator.socket", wish)
    show = showing(FragmentPath=path, DropInPaths="", UnitFileState="static")
    text = "[Socket]\nIPAddressDeny=any\nIPAddressAllow=localhost\n"
    facts = Facts(show, Files((Fragment(path, text),)), None)
    found = by_id(judge(expected, facts))
    assert {one["result"] for one in found.values()} == {"pass"}
    assert "service.llm-key-validator-socket.directive.IPAddressDeny" in found
    without = replace(facts, files=Files((Fragment(path, "[Socket]\nIPAddressDeny=any\n"),)))
    assert [name.rpartition(".")[2] for name in red(judge(expected, without))] == ["IPAddressAllow"]


@pytest.mark.parametrize(
    ("values", "shown", "same"),
    [
        ("localhost 10.0.0.5", "127.0.0.0/8 ::1/128 10.0.0.5/32", True),
        ("localhost 10.0.0.5", "127.0.0.0/8 ::1/128", False),
        ("10.0.0.0/9 10.128.0.0/9", "10.0.0.0/8", True),
        ("any", "0.0.0.0/0", False),
    ],
)
def test_addresses_are_compared_by_meaning(values, shown, same):
    wish = make_wish({"Service": {"IPAddressAllow": values}}, {}, ())
    fragments = (Fragment(UNIT, f"[Service]\nIPAddressAllow={values}\n"),)
    facts = replace(
        FACTS, files=Files(fragments), show=showing(IPAddressAllow=shown, DropInPaths="")
    )
    assert reds(facts, Expected("ollama.service", wish)) == (
        {} if same else {"directive.IPAddressAllow": "fail"}
    )


@pytest.mark.parametrize(
    ("unit", "name"),
    [("ollama.service", "ollama"), ("a@b.service", "a-b"), ("x.socket", "x-socket")],
)
def test_ids(unit, name):
    assert slug(unit) == name


def test_properties_in_several_lines_are_one():
    assert SHOW["DeviceAllow"] == "char-drm rw /dev/null rw"
