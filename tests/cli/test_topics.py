"""`rawws publish` and `rawws subscribe`, as a person and a script use them: real processes and pipes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import trustme

from rawws.cli.environment import options_in
from tests.cli.hub import KEY
from tests.processes import LOOPBACK, ROOT, Process, eventually, free_port

HUB = Path(__file__).with_name("hub.py")
BOLD = ("--key", KEY)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with Process([sys.executable, HUB], listens=True) as process:
        yield f"{LOOPBACK}:{process.port}"


@pytest.fixture
def api(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://{address}/api/", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ) as client:
        yield client


def environment(**more: str) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if name != "RAWWS_KEY"}
    return {**rest, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **more}


def run(*arguments: str | bytes, stdin: bytes = b"", **env: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "rawws", *arguments],
        input=stdin,
        env=environment(**env),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def history(api: httpx.Client, topic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get("history", params={"topic": topic}).json()["publications"]
    return found


def waits_for_input(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process took all of its input, and sleeps."""
    assert process.stdin is not None
    [left] = struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)))
    state = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    return not left and state == "S"


@contextlib.contextmanager
def subscribing(api: httpx.Client, *arguments: str, topic: str) -> Iterator[Process]:
    """Run `subscribe` until it is subscribed."""
    before = count(api, topic)
    command = [sys.executable, "-m", "rawws", "subscribe", *arguments]
    with Process(command, env={"RAWWS_KEY": KEY}) as process:
        eventually(lambda: count(api, topic) == before + 1)
        yield process


def count(api: httpx.Client, topic: str) -> int:
    found: int = api.get("subscribers", params={"topic": topic}).json()["count"]
    return found


# -- publish


def test_publish_prints_the_cursor(address: str, api: httpx.Client) -> None:
    # What stands on the command line counts first.
    status, out, err = run("publish", f"http://{address}/api", "one", "Grüße", *BOLD, RAWWS_KEY="another")
    assert (status, err) == (0, "")
    [found] = history(api, "one")
    assert (found["data"], found["cursor"]) == ("Grüße", out.strip())


def test_publish_says_that_a_text_is_json_and_names_an_event(address: str, api: httpx.Client) -> None:
    url = f"http://{address}/api"
    assert run("publish", url, "board", '{"x": 1}', "--as-json", "--event", "move", *BOLD)[0] == 0
    [found] = history(api, "board")
    assert (found["data"], found["json"], found["event"]) == ('{"x": 1}', True, "move")
    status, _, err = run("publish", url, "board", "{", "--as-json", *BOLD)
    assert (status, "data is not JSON" in err) == (1, True)
    status, _, err = run("publish", url, "board", "{", "--as-json", "--binary", *BOLD)
    assert (status, "--binary and --as-json are two kinds of message, allowed is one" in err) == (2, True)


def test_the_key_is_in_the_environment_and_the_text_on_standard_input(address: str, api: httpx.Client) -> None:
    url = f"{address}/api/"
    status, out, _ = run("publish", url, "two", "-", "--json", stdin="two\nlines ü\n".encode(), RAWWS_KEY=KEY)
    [found] = history(api, "two")
    assert (status, json.loads(out)) == (0, {"topic": "two", "cursor": found["cursor"]})
    assert found["data"] == "two\nlines ü\n"
    status, _, err = run("publish", url, "two", "-", *BOLD, stdin=b"\xff")
    assert (status, err) == (1, "rawws: what is to be published is not UTF-8 at byte 0; --binary takes any message\n")
    assert run("publish", url, "two", "-", *BOLD, "--binary", stdin=b"\xff")[0] == 0
    assert history(api, "two")[1]["base64"] == "/w=="


def test_what_cannot_be_published_is_one_line(address: str, tmp_path: Path) -> None:
    url = f"http://{address}/api"
    port = free_port()
    nobody, page = f"http://{LOOPBACK}:{port}", f"http://{address}/strange"
    for arguments, status, reason in [
        ((url, "a", "x", "--key", "wrong"), 1, "needed is Authorization: Bearer, and a key"),
        ((url, "a\n", "x", *BOLD), 1, r"the topic is 'a\n', allowed are 1 to 255 printable bytes (HTTP status 400)"),
        ((f"http://{address}/topics", "a", "x", *BOLD), 1, "there is nothing at this path"),
        ((nobody, "a", "x", *BOLD), 1, "nothing listens at"),
        ((url, "a", "x", *BOLD, "--uds", str(tmp_path / "no")), 1, "no: there is no such"),
        ((url, "a", "x", *BOLD, "--proxy", nobody), 1, f"nothing listens at {LOOPBACK}:{port}"),
        ((url, b"\xff", "x", *BOLD), 2, "the topic is not UTF-8 at character 0"),
        ((url, "a", "x", "--event", b"\xff", *BOLD), 2, "the name of the event is not UTF-8 at character 0"),
        ((f"https://{address}/api", "a", "x", *BOLD), 1, "TLS"),
        ((page, "a", "x", *BOLD), 1, "the answer has no cursor, so it is none of the API of a hub"),
        ((url, "a", "x"), 2, "there is no key, needed is RAWWS_KEY in the environment, or --key"),
        (("ftp://x", "a", "x", *BOLD), 2, "it must begin with http:// or https://"),
        (("http://ann@x/api", "a", "x", *BOLD), 2, "the URI has a user name, needed for an API is a key"),
        ((url + "?a=b", "a", "x", *BOLD), 2, "that of an API has no '?' and no '#'"),
        ((url, "a", "x", "--key", "two\nlines"), 2, "Authorization"),
        ((f"https://{address}/api", "a", "x", *BOLD, "--ca", str(tmp_path / "no")), 2, "cannot use the certificates"),
    ]:
        found, out, err = run("publish", *arguments)
        assert (found, out, err.count("\n")) == (status, "", 1), err
        assert err.startswith("rawws: ")
        assert reason in err


def test_a_server_that_says_nothing_is_not_waited_for(address: str) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        url = f"http://{LOOPBACK}:{listener.getsockname()[1]}/api"
        status, _, err = run("send", url.replace("http:", "ws:"), "x", "--open-timeout", "0.2")
        assert (status, "within 0.2 s" in err) == (1, True)
        status, _, err = run("publish", url, "a", "x", *BOLD, "--timeout", "0.2")
        assert (status, "no answer from" in err) == (1, True)
        status, _, err = run("subscribe", url, "a", "--open-timeout", "0.2")
        assert (status, "no answer from" in err) == (1, True)


@pytest.mark.parametrize(
    "arguments", [("publish", "http://127.0.0.1:1", "a", "-", *BOLD), ("send", "ws://127.0.0.1:1", "-")]
)
def test_an_interrupt_ends_what_waits_for_its_input(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "rawws", *arguments]
    with subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        eventually(lambda: waits_for_input(process))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


def test_the_key_in_the_environment_is_no_option_of_serve() -> None:
    assert options_in({"RAWWS_KEY": KEY}, ["serve", "chat:chat"]) == {}


# -- subscribe


def test_each_publication_is_one_line_whoever_publishes(address: str, api: httpx.Client) -> None:
    with subscribing(api, f"http://{address}/api", "lines", topic="lines") as process:
        for data in ("Grüße", "two\nlines\r\n", {"a": 1}):
            api.post("publish", json={"topic": "lines", "data": data})
        api.post("publish", json={"topic": "lines", "base64": "AP8="})
        wanted = 'Grüße\ntwo\\nlines\\r\\n\n{"a":1}\nAP8=\n'
        assert process.wait_for(lambda output: output.count("\n") == 4, "four lines came") == wanted
        process.send_signal(signal.SIGINT)
        assert process.result(60) == wanted


def test_envelopes_of_several_topics_since_the_beginning_and_so_many(address: str, api: httpx.Client) -> None:
    for topic in ("left", "right", "left"):
        api.post("publish", json={"topic": topic, "data": "x"})
    url = f"{address}/api"
    status, out, err = run("subscribe", url, "left", "right", "--since", "earliest", "--json", "--count", "3", *BOLD)
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert sorted(each["topic"] for each in found) == ["left", "left", "right"]
    status, out, _ = run("subscribe", url, "left", "--since", history(api, "left")[0]["cursor"], "--count", "1", *BOLD)
    assert (status, out) == (0, "x\n")


def test_a_pattern_is_said_to_be_one_and_gets_all_that_match(address: str, api: httpx.Client) -> None:
    command = [
        sys.executable,
        "-m",
        "rawws",
        "subscribe",
        f"{address}/api",
        "match/*",
        "--pattern",
        "--since",
        "ffff:1",
    ]
    with Process(command, env={"RAWWS_KEY": KEY}) as process:
        process.wait_for(lambda output: output.endswith("not known what was missed of 'match/*'\n"), "it is subscribed")
        for topic in ("match/a", "other", "match/*"):
            api.post("publish", json={"topic": topic, "data": f"to {topic}"})
        process.wait_for(lambda output: output.endswith("\nto match/a\nto match/*\n"), "both came")
        process.send_signal(signal.SIGINT)
        process.result(60)
    for arguments, reason in (
        (("topics", "match/*"), "403"),
        (("api", "m/*/x"), "400"),
    ):
        status, out, err = run("subscribe", f"{address}/{arguments[0]}", arguments[1], "--pattern", RAWWS_KEY=KEY)
        assert (status, out, err.count("\n")) == (1, "", 1), err
        assert reason in err


def test_it_goes_on_where_it_was_when_the_line_breaks(address: str, api: httpx.Client) -> None:
    with subscribing(api, f"http://{address}/feed", "kept", topic="kept") as process:
        api.post("publish", json={"topic": "kept", "data": "before"})
        process.wait_for(lambda output: "before" in output, "it came")
        api.get(f"http://{address}/drop")
        eventually(lambda: count(api, "kept") == 0)
        api.post("publish", json={"topic": "kept", "data": "meanwhile"})
        output = process.wait_for(lambda output: "meanwhile\n" in output, "it is back")
        first, note, last = output.splitlines()
        assert (first, last) == ("before", "meanwhile")
        assert note.startswith("rawws: the server ended the stream; again in ")
        process.send_signal(signal.SIGTERM)
        process.result(60)


def test_what_is_missed_is_said(address: str) -> None:
    status, out, err = run(
        "subscribe", f"{address}/api", "gone", "--since", "ffff:1", "--count", "1", stdin=b"", RAWWS_KEY="x"
    )
    assert (status, out) == (1, "")
    assert "401" in err
    with Process(
        [sys.executable, "-m", "rawws", "subscribe", f"{address}/topics", "gone", "--since", "ffff:1"]
    ) as process:
        process.wait_for(lambda output: output == "rawws: it is not known what was missed of 'gone'\n", "it is said")
        process.send_signal(signal.SIGINT)
        process.result(60)


def test_a_server_that_is_gone_is_waited_for_and_a_refusal_later_on_ends_it(tmp_path: Path) -> None:
    port = free_port()
    text = HUB.read_text(encoding="utf-8").replace('"127.0.0.1", 0', f'"127.0.0.1", {port}')
    program = tmp_path / "hub.py"
    program.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "rawws", "subscribe", f"{LOOPBACK}:{port}/api", "a", *BOLD]
    with httpx.Client(
        base_url=f"http://{LOOPBACK}:{port}/api/", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    ) as api:
        with Process([sys.executable, program], listens=port):
            process = Process(command)
            try:
                eventually(lambda: count(api, "a") == 1)
            except BaseException:
                process.stop()
                raise
        with process:
            process.wait_for(lambda output: "; again in" in output, "it tries again")
            program.write_text(text.replace(KEY, "another-key-of-the-tests"), encoding="utf-8")
            with Process([sys.executable, program], listens=port):
                process.wait_for(lambda output: "401" in output, "it is refused")
                eventually(lambda: process.poll() is not None)
            assert process.poll() == 3
            assert "rawws: the subscription at http://" in process.output.splitlines()[-1]


def test_http2_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    trustme.CA().issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    with Process([sys.executable, HUB, tmp_path / "server.pem"], listens=True) as process:
        at = f"HTTPS://{LOOPBACK}:{process.port}"
        assert run("publish", f"{at}/api", "a", "one", "--insecure", *BOLD)[0] == 0
        command = ("subscribe", f"{at}/feed", "a", "--since", "earliest", "--count", "1", "--insecure")
        for options, version in (((), "1.1"), (("--http2",), "2")):
            assert run(*command, *options) == (0, "one\n", "")
            assert process.output.endswith(f"HTTP version {version}\n")
    assert run("subscribe", "http://localhost/feed", "a", "--http2") == (
        2,
        "",
        "rawws: --http2 is agreed on in TLS, and http://localhost/feed has none: needed is https://\n",
    )


def test_what_cannot_be_subscribed_to_is_one_line(address: str) -> None:
    nobody = f"http://{LOOPBACK}:{free_port()}"
    for arguments, status, reason in [
        ((nobody, "a"), 1, "nothing listens at"),
        (("ali-baba:sesame@" + nobody.removeprefix("http://"), "a"), 1, "cannot subscribe at http://***@"),
        ((f"{address}/api", "a", "--uds", "/nowhere"), 1, "/nowhere: there is no such"),
        ((f"{address}/topics", "b", b"a\xff"), 2, "the topic is not UTF-8 at character 1"),
        ((f"{address}/topics", "a", "--since", b"\xff"), 2, "the cursor is not UTF-8 at character 0"),
        ((f"{address}/topics", "secret"), 1, "403"),
        ((f"{address}/envelope?text=[&times=5000", "a"), 3, "what came is no envelope of rawws.v1: [[["),
        ((f"{address}/api", "a", "--key", "wrong"), 1, "401"),
        ((f"{address}/api", "a", "--header", "Authorization: Basic x"), 1, "401"),
        ((f"{address}/nothing", "a"), 1, "there is nothing at this path"),
        ((f"{address}/topics/rawws.js", "a"), 1, "needed is 'text/event-stream'"),
        ((f"{address}/other", "a"), 3, "what came is no envelope of rawws.v1: no\\x1b envelope"),
        ((f"{address}/topics", "a", "--since", "x"), 1, "400"),
        (("ws://x", "a"), 2, "it must begin with http:// or https://"),
        ((f"{address}/api", "a", "--header", "Accept: x"), 2, "'Accept' cannot be added"),
    ]:
        found, out, err = run("subscribe", *arguments)
        assert (found, out, err.count("\n")) == (status, "", 1), err
        assert reason in err
        assert "sesame" not in err
    for arguments in ((address, "a", "--count", "0"), (address, "a", "--count", "²"), (address,)):
        assert run("subscribe", *arguments)[0] == 2


@pytest.mark.parametrize(
    ("text", "times", "shown"),
    [
        ('{"topic":"a","data":"x"}' + " " * 1000, 3000, None),
        ('{"topic":"a","data":"\\ud800"}', 1, "?\n"),
    ],
    ids=["long", "half a character"],
)
def test_what_comes_may_be_longer_than_a_person_reads_and_no_text(
    address: str, text: str, times: int, shown: str | None
) -> None:
    query = urlencode({"text": text, "times": times})
    status, out, err = run("subscribe", f"{address}/envelope?{query}", "a", "--count", "1")
    if shown is None:
        # It came, and is then no envelope.
        assert (status, "what came is no envelope of rawws.v1" in err) == (3, True)
    else:
        assert (status, out, err) == (0, shown, "")


def test_the_proxy_of_the_environment_is_used_unless_it_shall_not_be(address: str) -> None:
    dead = "http://127.0.0.1:1"
    for command, more in (("publish", ["text"]), ("subscribe", ["--since", "earliest", "--count", "1"])):
        status, _, err = run(command, f"{address}/api", "proxied", *more, RAWWS_KEY=KEY, no_proxy="", http_proxy=dead)
        assert (status, err.endswith(": nothing listens at 127.0.0.1:1\n")) == (1, True)
        assert (
            run(command, f"{address}/api", "proxied", *more, "--proxy", "off", RAWWS_KEY=KEY, http_proxy=dead)[0] == 0
        )


def test_what_cannot_be_printed_is_told(address: str) -> None:
    for arguments in (
        ("publish", f"{address}/api", "full", "x"),
        ("subscribe", f"{address}/api", "full", "--since", "earliest"),
    ):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "rawws", *arguments],
                env=environment(RAWWS_KEY=KEY),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stderr) == (
            1,
            b"rawws: cannot write to standard output: No space left on device\n",
        )


def test_who_reads_no_more_ends_it(address: str, api: httpx.Client) -> None:
    command = [sys.executable, "-m", "rawws", "subscribe", f"{address}/api", "pipe"]
    with subprocess.Popen(
        command, env=environment(RAWWS_KEY=KEY), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        eventually(lambda: count(api, "pipe") == 1)
        assert process.stdout is not None
        process.stdout.close()
        api.post("publish", json={"topic": "pipe", "data": "x"})
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_terminal_gets_nothing_that_moves_its_cursor(address: str, api: httpx.Client) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "rawws", "subscribe", f"{address}/api", "tty", "--count", "1"]
    with subprocess.Popen(command, env=environment(RAWWS_KEY=KEY), stdout=follower) as process:
        eventually(lambda: count(api, "tty") == 1)
        api.post("publish", json={"topic": "tty", "data": "\x1b[2J\nend"})
        assert process.wait(60) == 0
    came = b""
    while not came.endswith(b"\r\n"):
        came += os.read(leader, 1000)
    assert came == b"\\x1b[2J\\nend\r\n"
    os.close(leader)
    os.close(follower)
