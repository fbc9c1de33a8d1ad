"""pusher-js and Laravel Echo in Chromium, as their builds for browsers are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pusher
import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import eventually
from tests.cli.commands import port
from tests.gateway.instances import instances
from tests.gateway.running import APP, KEY, SECRET, app_file

MODULES: Final = Path(__file__).with_name("node") / "node_modules"
# What an application has its page do; `sign` is its server.
PAGE: Final = """
async ({port, key, user}) => {
  window.got = [];
  window.options = {
    cluster: "", wsHost: "127.0.0.1", wsPort: port, forceTLS: false, enabledTransports: ["ws"],
    channelAuthorization: { customHandler: async ({ socketId, channelName }, callback) =>
      callback(null, await sign(socketId, channelName, user)) },
  };
  window.pusher = new Pusher(key, options);
}
"""
SUBSCRIBE: Final = """
(name) => {
  const channel = pusher.subscribe(name);
  channel.bind_global((event, data) => got.push([name, event, data]));
}
"""


def sign(socket_id: str, channel: str, user: str) -> dict[str, str]:
    """Authorize, as the server of an application does."""
    library = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, encryption_master_key_base64="A" * 43 + "=")
    member = {"user_id": user} if channel.startswith("presence-") else None
    signed: dict[str, str | bytes] = library.authenticate(channel=channel, socket_id=socket_id, custom_data=member)
    return {name: value if isinstance(value, str) else value.decode() for name, value in signed.items()}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with instances(tmp_path_factory.mktemp("gateway"), app_file()) as [process]:
        yield port(process)


def opened(browser: Browser, at: int, user: str, *scripts: str) -> Page:
    page = browser.new_page()
    # Any page of this machine: Chromium lets no other one reach it.
    page.goto(f"http://127.0.0.1:{at}/healthz")
    page.expose_function("sign", sign)
    for script in scripts:
        page.add_script_tag(path=MODULES / script)
    page.evaluate(PAGE, {"port": at, "key": KEY, "user": user})
    return page


def test_all_kinds_of_channels_work_in_a_page(browser: Browser, running: int) -> None:
    api = pusher.Pusher(
        app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=running,
        encryption_master_key_base64="A" * 43 + "=",
    )  # fmt: skip
    pages = [opened(browser, running, user, "pusher-js/dist/web/pusher-with-encryption.js") for user in ("ann", "bob")]
    channels = ["room", "private-a", "presence-a", "private-encrypted-a", "cache-a"]
    for page in pages:
        eventually(page, "/^\\d+\\.\\d+$/.test(pusher.connection.socket_id)")
        for channel in channels:
            page.evaluate(SUBSCRIBE, channel)
        subscribed = " && ".join(f"pusher.channel('{channel}').subscribed" for channel in channels)
        eventually(page, subscribed)
    for channel in channels:
        api.trigger(channel, "news", {"of": channel})
    for page in pages:
        eventually(page, "got.filter(([, event]) => event === 'news').length === 5")
        found = page.evaluate("got.filter(([, event]) => event === 'news').map(([name, , data]) => [name, data])")
        assert sorted(found) == sorted([channel, {"of": channel}] for channel in channels)
    eventually(pages[0], "pusher.channel('presence-a').members.count === 2")
    pages[1].evaluate("pusher.channel('private-a').trigger('client-x', {from: 'bob'})")
    eventually(pages[0], "got.some(([, event, data]) => event === 'client-x' && data.from === 'bob')")
    pages[1].close()
    eventually(pages[0], "pusher.channel('presence-a').members.count === 1")
    pages[0].close()


ECHO: Final = """
({key, broadcaster}) => {
  const authorizer = (channel) => ({ authorize: (socketId, callback) =>
    sign(socketId, channel.name, "ann").then((signed) => callback(null, signed)) });
  const echo = window.echo = new Echo.default({ broadcaster, key, ...options, authorizer });
  echo.channel("orders").listen("Shipped", (data) => got.push(data));
  echo.join("echo").here((users) => { window.users = users.length; });
}
"""


@pytest.mark.parametrize("broadcaster", ["reverb", "pusher"])
def test_echo_works_in_a_page(browser: Browser, running: int, broadcaster: str) -> None:
    api = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=running)
    page = opened(browser, running, "ann", "pusher-js/dist/web/pusher.js", "laravel-echo/dist/echo.iife.js")
    page.evaluate(ECHO, {"key": KEY, "broadcaster": broadcaster})
    eventually(page, "window.users === 1")
    api.trigger("orders", "App\\Events\\Shipped", {"id": 5})
    eventually(page, "got.length === 1 && got[0].id === 5")
    page.close()
