"""The page about push tells the truth: its programs push, and its worker shows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from rawws.integrations.push import PushDevice, PushMessage, new_vapid_key
from tests.integrations.push_doubles import Browser, account_file, apns_device, apns_key, fcm_device, push_double
from tests.processes import ROOT, find_node, free_port
from tests.server.peers import eventually

PAGE: Final = (ROOT / "docs/run/push.md").read_text(encoding="utf-8")
# What a browser has in the place of which a test stands.
FAKES: Final = """
const told = [];
globalThis.PUBLIC_KEY = "public";
const subscribed = { toJSON: () => ({ endpoint: "https://push.example.com/1", keys: { p256dh: "P", auth: "A" } }) };
const pushManager = { subscribe: async (options) => { told.push(options); return subscribed; } };
const serviceWorker = { register: async (path) => { told.push(path); return { pushManager }; } };
Object.defineProperty(globalThis, "navigator", { value: { serviceWorker } });
globalThis.fetch = async (path, options) => { told.push(path, options); };
globalThis.self = {
  addEventListener: (name, listener) => { told.push(name); self.listener = listener; },
  registration: { showNotification: async (title, options) => { told.push(title, options); } },
};
"""
SHOWN: Final = """
const came = { title: "T", body: "B", data: { a: "b" } };
await new Promise((done) => {
  self.listener({ data: { json: () => came }, waitUntil: (shown) => shown.then(done) });
});
console.log(JSON.stringify(told));
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def table(head: str) -> list[str]:
    """Return the names in the first column of a table."""
    [rows] = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [name for row in rows.splitlines() for name in re.findall("`(.*?)`", row.split("|")[1])]


async def test_the_program_pushes_to_all_devices_of_who_missed_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.p8").write_text(apns_key())
    async with push_double() as (double, tls):
        monkeypatch.setenv("VAPID_KEY", new_vapid_key()[0])
        monkeypatch.setenv("APNS_KEY", str(tmp_path / "key.p8"))
        monkeypatch.setenv("FCM_ACCOUNT", str(account_file(tmp_path, double)))
        text = blocks("python")[0]
        for plain, here in {
            'subject="mailto:ops@example.com"': 'subject="mailto:ops@example.com", hosts=[double.host]',
            'topic="com.example.chat",': 'topic="com.example.chat", url=double.url,',
            '"FCM_ACCOUNT"]).read_text()': '"FCM_ACCOUNT"]).read_text(), url=double.url',
            "on_gone=forget,": "on_gone=forget, tls=tls,",
            "after=5": "after=0",
            "8765": str(free_port()),
        }.items():
            assert text.count(plain) == 1
            text = text.replace(plain, here)
        program: dict[str, Any] = {"__name__": "program", "double": double, "tls": tls}
        exec(compile(text, "push.md", "exec"), program)
        running = asyncio.ensure_future(program["main"]())
        try:
            # The WebSocket server is the last to begin.
            await eventually(lambda: program["sender"]._queues["web"]._task is not None)
            browser = Browser(double)
            for ident, device in (("a", browser.device), ("b", apns_device()), ("c", fcm_device())):
                fields = {name: value for name, value in device.fields().items() if name not in {"id", "user"}}
                program["register"]("ann", ident, fields)
            with pytest.raises(ValueError, match="none of a known push service"):
                program["register"]("ann", "d", {**fields_of(browser), "token": "https://127.0.0.1/"})
            program["hub"].notify(["ann", "ben"], "chat", "Hello")
            await eventually(lambda: len(double.pushed) == 3)
            assert {pushed.device for pushed in double.pushed} == {"subscription-1", apns_device().token, "device:1"}
            double.browsers.clear()
            program["hub"].notify(["ann"], "chat", "Hello")
            await eventually(lambda: list(program["devices"]["ann"]) == ["b", "c"])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def fields_of(browser: Browser) -> dict[str, Any]:
    return {"service": "web", "token": browser.endpoint, "keys": browser.keys}


def test_the_program_makes_a_key_pair(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[1], "push.md", "exec"), {"__name__": "program"})
    assert re.fullmatch(r"VAPID_KEY=[\w-]{43}\nin the page: [\w-]{87}\n", capsys.readouterr().out)


async def test_the_page_subscribes_and_the_worker_shows(tmp_path: Path) -> None:
    page, worker = blocks("js")
    (tmp_path / "page.mjs").write_text(FAKES + page + worker + SHOWN)
    process = await asyncio.create_subprocess_exec(
        find_node(), str(tmp_path / "page.mjs"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    path, options, url, sent, name, title, shown = json.loads(output)
    assert (path, options) == ("/worker.js", {"userVisibleOnly": True, "applicationServerKey": "public"})
    assert (url, sent["method"], name) == ("/devices/browser-1", "PUT", "push")
    assert (title, shown) == ("T", {"body": "B", "data": {"a": "b"}})
    fields = json.loads(sent["body"])
    assert fields == {"service": "web", "token": "https://push.example.com/1", "keys": {"p256dh": "P", "auth": "A"}}


def test_the_tables_have_the_fields_and_the_defaults_that_there_are() -> None:
    fields = {field.name: field for field in dataclasses.fields(PushMessage)}
    assert table("`PushMessage`") == list(fields)
    for name, default in re.findall(r"^\| `(ttl|urgency)` \| `(.*?)` \|", PAGE, re.MULTILINE):
        assert json.dumps(fields[name].default) == default
    assert sorted(table("`PushDevice`")) == sorted(field.name for field in dataclasses.fields(PushDevice))
