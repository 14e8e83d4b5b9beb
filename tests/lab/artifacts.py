# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is built from: host images, a real Ollama, a tiny model, the official clients.

Each is made once and kept under .cache/ with a key of its recipe. A half-made one never
carries its final name, so a killed run leaves nothing that the next one would take.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab import litellm as litellm_files
from tests.lab import ollama_release, podman, tiny_model, wheels
from tests.lab.steps import CACHE, key_of, run, scratch_directory, step

SUITES = {"12": "bookworm", "13": "trixie"}

# A bare host as a cloud image gives it: systemd, SSH, sudo, Python. No nginx, no compiler: the
# roles must install what they need.
_PACKAGES = (
    "ca-certificates,curl,dbus,iproute2,openssh-server,procps,python3,python3-apt,sudo,systemd,"
    "systemd-sysv"
)
_LOGIN = "ansible"
_CUSTOMIZE = f"""\
set -eu
chroot "$1" useradd --create-home --shell /bin/bash {_LOGIN}
echo '{_LOGIN} ALL=(ALL) NOPASSWD: ALL' >"$1/etc/sudoers.d/{_LOGIN}"
chmod 0440 "$1/etc/sudoers.d/{_LOGIN}"
# Every host makes host keys of its own at its first boot.
rm -f "$1"/etc/ssh/ssh_host_*
cat >"$1/etc/ssh/sshd_config.d/lab.conf" <<'EOF'
AuthorizedKeysFile /etc/ssh/lab_authorized_keys
PasswordAuthentication no
UseDNS no
MaxStartups 100
MaxSessions 100
EOF
cat >"$1/etc/systemd/system/lab-host-keys.service" <<'EOF'
[Unit]
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
EOF
chroot "$1" systemctl -q enable lab-host-keys.service
# The kernel belongs to the machine that runs the lab: no modules to load in a container.
chroot "$1" systemctl -q mask systemd-modules-load.service
"""


def _cached(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The directory .cache/NAME-KEY, built by `build(directory)` when it is not there."""
    path = CACHE / f"{name}-{key}"
    if not path.exists():
        for stale in CACHE.glob(f"{name}-*"):
            shutil.rmtree(stale)
        with step(f"Building {name}"), scratch_directory() as scratch:
            result = scratch / "result"
            result.mkdir()
            build(result)
            result.rename(path)
    return path


def image(debian: str) -> str:
    """Name of the image of a bare Debian host ("12" or "13"), imported into podman."""
    suite = SUITES[debian]
    name = f"localhost/llmsec-lab-debian{debian}:{key_of(suite, _PACKAGES, _CUSTOMIZE)}"
    if podman.inspect("image", name):
        return name
    with step(f"Building the image of a bare Debian {debian} host"), scratch_directory() as scratch:
        hook = scratch / "customize.sh"
        hook.write_text(_CUSTOMIZE)
        tar = scratch / "host.tar"
        run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}",
             f"--customize-hook=sh {hook} \"$1\"", suite, tar]
        )  # fmt: skip
        podman.podman("import", "--quiet", tar, name)
    return name


def ollama() -> Path:
    """A release archive of a real Ollama."""
    key = key_of(ollama_release.architecture(), Path(ollama_release.__file__).read_text())
    directory = _cached("ollama", key, ollama_release.build)
    return directory / ollama_release.archive_name()


def model() -> Path:
    """A real, tiny, random GGUF model: nonsense in content, real in form."""

    def build(result: Path) -> None:
        tiny_model.write(result / "tiny.gguf")
        tiny_model.write(result / "embeddings.gguf", embeds=True)

    return _cached("model", key_of(Path(tiny_model.__file__).read_text()), build) / "tiny.gguf"


def embedding_model() -> Path:
    """The same with the mark of a model that makes embeddings."""
    return model().with_name("embeddings.gguf")


def clients() -> Path:
    """The official clients (openai, ollama, litellm, langchain-openai) for Debian 12's Python."""
    lock = Path(__file__).with_name("clients.lock")

    def build(result: Path) -> None:
        words = [*wheels.for_hosts("3.11"), "--no-compile", f"--target={result}", "-r", lock]
        run(["pip", "install", "--quiet", *words])

    return _cached("clients", key_of(lock.read_text(), platform.machine()), build)


def sslyze() -> Path:
    """The Python of an environment with sslyze, whose pins are not the tools'."""
    lock = Path(__file__).with_name("sslyze.lock")

    def build(result: Path) -> None:
        run([sys.executable, "-m", "venv", result])
        # Its programs name the folder in which it is built; Python finds its packages all the same.
        run(
            [
                result / "bin/python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "-r",
                lock,
            ]
        )

    return _cached("sslyze", key_of(lock.read_text(), sys.version), build) / "bin/python"


def litellm_path() -> Path:
    """Where the files of `litellm` are, or will be."""
    return CACHE / f"proxy-files-{litellm_files.key()}"


def litellm() -> Path:
    """A folder with LiteLLM's wheels for each release's Python, and its database client."""
    return _cached("proxy-files", litellm_files.key(), litellm_files.build)


def build(*wanted: Callable[[], object]) -> None:
    """Build several artifacts side by side; the first error ends it."""
    with ThreadPoolExecutor(len(wanted)) as pool:
        for result in [pool.submit(make) for make in wanted]:
            result.result()
