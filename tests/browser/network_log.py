"""Network log: the demo's page of one connection to a picture of what Chromium's developer tools have of it.

`python -m tests.browser.network_log` writes docs/run/http2.png.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import trustme
from playwright.sync_api import Page, sync_playwright

from tests.browser.chromium import ARGUMENTS, TIMEOUT
from tests.processes import LOOPBACK, ROOT, Process, find_program, free_port

PICTURE: Final = ROOT / "docs" / "run" / "http2.png"
SIZE: Final = {"width": 1000, "height": 860}
# To where requests, event streams and WebSockets can be seen.
SCROLL: Final = 230
SETTINGS: Final = {
    "screencast-enabled": "false",
    "network-log-show-overview": "false",
    "panel-selected-tab": '"network"',
    "network-log-columns": json.dumps({
        "name": {"visible": True, "title": "Name"},
        "protocol": {"visible": True, "title": "Protocol"},
        "connection-id": {"visible": True, "title": "Connection ID"},
        "initiator": {"visible": False, "title": "Initiator"},
    }),
}  # fmt: skip


def main() -> None:
    """Draw."""
    port, debugging = free_port(), free_port()
    chromium = find_program("chromium", "apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, sync_playwright() as playwright:
        certificate = Path(folder, "server.pem")
        trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        command = [sys.executable, "-m", "rawws", "demo", "--port", str(port), "--ssl-certfile", str(certificate)]
        with Process(command, listens=port):
            options = [f"--remote-debugging-port={debugging}", "--remote-allow-origins=*"]
            browser = playwright.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, *options])
            context = browser.new_context(ignore_https_errors=True, viewport=SIZE)  # type: ignore[arg-type]
            page, tools = context.new_page(), context.new_page()
            attach(page, tools, debugging)
            page.goto(f"https://localhost:{port}/connection")
            page.wait_for_function("document.getElementById('connections').textContent === '1'", timeout=TIMEOUT)
            page.wait_for_function("document.getElementById('requests-count').textContent === '20'", timeout=TIMEOUT)
            time.sleep(2)  # until the tools have drawn it
            tools.mouse.move(SIZE["width"] / 2, SIZE["height"] / 2)
            tools.mouse.wheel(0, -10_000)
            tools.mouse.wheel(0, SCROLL)
            tools.mouse.move(SIZE["width"] / 2, 0)
            time.sleep(1)
            tools.screenshot(path=PICTURE)
            browser.close()


def attach(page: Page, tools: Page, debugging: int) -> None:
    """Open the developer tools of a page in another."""
    page.goto("data:text/html,<title>looked at</title>")
    with urlopen(f"http://{LOOPBACK}:{debugging}/json/list") as answer:
        [target] = [each["id"] for each in json.load(answer) if each["title"] == "looked at"]
    tools.add_init_script(
        "".join(f"localStorage.setItem({json.dumps(k)}, {json.dumps(v)});" for k, v in SETTINGS.items())
    )
    at = f"{LOOPBACK}:{debugging}/devtools"
    tools.goto(f"http://{at}/inspector.html?ws={at}/page/{target}&panel=network")
    time.sleep(3)


if __name__ == "__main__":
    main()
