# SPDX-License-Identifier: GPL-3.0-or-later
"""A real browser, spoken to over its DevTools pipe: NUL-terminated JSON on descriptors 3 and 4."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time

PROGRAM = shutil.which("chromium")
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--remote-debugging-pipe",
    # Nothing leaves this machine: every name and address but the page's own file is refused.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
_COMPLAINTS = {
    "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded",
    "Page.javascriptDialogOpening",
}  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}


class Page:
    """One page. `complaints` is what its console, its exceptions and its policy said."""

    def __init__(self, to_browser, from_browser):
        self._to, self._from = to_browser, from_browser
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.renew()
        self._session = None
        self._loaded = False
        self.complaints = []
        self.requests = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def renew(self, seconds=60):
        """Give the browser so long again, until it counts as stuck."""
        self._until = time.monotonic() + seconds

    def __call__(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._event(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            ready, _writable, _broken = select.select(
                [self._from], [], [], max(0, self._until - time.monotonic())
            )
            data = os.read(self._from, 1 << 20) if ready else b""
            if not data:
                raise TimeoutError("the browser says nothing")
            self._buffer += data
        message, _nul, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _event(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method in _COMPLAINTS:
            self.complaints.append(params)

    def open(self, url):
        self._loaded = False
        # Another fragment alone would be no navigation.
        self("Page.navigate", url="about:blank")
        while not self._loaded:
            self._event(self._receive())
        self._loaded = False
        self("Page.navigate", url=url)
        while not self._loaded:
            self._event(self._receive())

    def run(self, expression, wait=False):
        """Return the value of a JavaScript expression, or what it promises."""
        done = self(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=wait
        )
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"])
        return done["result"].get("value")

    def press(self, key, shift=False):
        code = KEYS[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self("Input.insertText", text=text)


def _pipe():
    """Return a pipe with descriptors that are neither 3 nor 4."""
    ends = os.pipe()
    kept = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return kept


@contextlib.contextmanager
def page(folder, *options):
    """Give a page of a fresh browser, whose profile is in the folder."""
    browser_reads, we_write = _pipe()
    we_read, browser_writes = _pipe()
    script = f'exec "$0" "$@" 3<&{browser_reads} 4>&{browser_writes}'
    command = [PROGRAM, *_OPTIONS, f"--user-data-dir={folder}", *options]
    with subprocess.Popen(
        ["bash", "-c", script, *command], pass_fds=(browser_reads, browser_writes),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(browser_reads)
        os.close(browser_writes)
        try:
            yield Page(we_write, we_read)
        finally:
            os.close(we_write)
            os.close(we_read)
            process.terminate()
