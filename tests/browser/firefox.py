"""Firefox: the Debian package, headless, driven by its own remote protocol, Marionette, in JSON over TCP."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from tests.processes import LOOPBACK, Process, find_program

__all__ = ["Firefox", "firefox"]

# A free port of its own, which it writes into a file of its profile; and nothing asked of its maker's hosts.
PREFERENCES: Final = {
    "marionette.port": 0,
    "app.update.disabledForTesting": True,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}
# The first start of a profile is slow.
TIMEOUT: Final = 120.0
# The kinds of messages (of the protocol, version 3).
COMMAND, ANSWER = 0, 1


@final
class Firefox:
    """A browser with one page."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: Final = sock
        self._file: Final = sock.makefile("rb")
        self._number = 0
        self._read()  # its greeting

    def command(self, name: str, **parameters: Any) -> Any:
        """Have it do something, and return what comes of that."""
        self._number += 1
        text = json.dumps([COMMAND, self._number, name, parameters]).encode()
        self._sock.sendall(b"%d:%s" % (len(text), text))
        kind, number, error, result = self._read()
        assert (kind, number) == (ANSWER, self._number)
        assert error is None, error
        return result

    def _read(self) -> Any:
        length = b""
        while (octet := self._file.read(1)) != b":":
            assert octet, "Firefox ended"
            length += octet
        return json.loads(self._file.read(int(length)))

    def open(self, url: str) -> None:
        """Open a page."""
        self.command("WebDriver:Navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        return self.command("WebDriver:ExecuteScript", script=f"return {expression}", args=[])["value"]


@contextmanager
def firefox() -> Iterator[Firefox]:
    """Run a browser that takes any certificate."""
    program = find_program("firefox-esr", "apt-get install firefox-esr")
    # It leaves its temporary files.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile, port = Path(folder, "profile"), Path(folder, "profile", "MarionetteActivePort")
        profile.mkdir()
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
        (profile / "user.js").write_text("".join(lines), encoding="utf-8")
        command = [program, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
        environment = {"HOME": folder, "TMPDIR": folder}
        with Process([*command, "--profile", str(profile)], env=environment) as process:
            process.wait_for(lambda _: port.exists() and port.read_text(encoding="utf-8") != "", "it starts", TIMEOUT)
            with socket.create_connection((LOOPBACK, int(port.read_text(encoding="utf-8"))), TIMEOUT) as sock:
                browser = Firefox(sock)
                browser.command("WebDriver:NewSession", acceptInsecureCerts=True)
                yield browser
