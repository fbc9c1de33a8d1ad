"""What an endpoint's answer becomes."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws import clock
from tests.server.answers import ask, get, judge, on
from tests.server.peers import Logged, Peer, eventually, narrow, serve


@pytest.mark.parametrize(
    ("value", "status", "kind", "body"),
    [
        ("grüße", 200, "text/plain; charset=utf-8", "grüße".encode()),
        (b"\x00", 200, "application/octet-stream", b"\x00"),
        ({"a": [1, None]}, 200, "application/json", b'{"a":[1,null]}'),
        ([], 200, "application/json", b"[]"),
        (None, 204, None, b""),
        ("", 200, "text/plain; charset=utf-8", b""),
        (rawws.Response(201, "<p>", content_type="text/html"), 201, "text/html", b"<p>"),
        (rawws.Response.json(7, 202, {"X-Name": "a"}), 202, "application/json", b"7"),
        (rawws.Response(304), 304, None, b""),
    ],
)
async def test_an_answer_becomes_a_response(value: Any, status: int, kind: str | None, body: bytes) -> None:
    async with serve(on("/", lambda _: value)) as server:
        answer, after = await ask(server, get() * 2, ["GET"] * 2)
        assert (answer.status, answer.headers.get("content-type"), answer.body) == (status, kind, body)
        assert after == answer._replace(headers=after.headers)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_raises(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        rawws.Response.json(value)
    with pytest.raises(TypeError):
        rawws.Response.json({1, 2})


# -- files


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.txt", "text/plain; charset=utf-8"), ("a.html", "text/html; charset=utf-8"), ("a.png", "image/png"),
     ("a", "application/octet-stream"), ("a.tar.gz", "application/octet-stream")],
)  # fmt: skip
async def test_a_file_has_the_type_of_its_name(name: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"content")
    async with serve(on("/", lambda _: rawws.Response.file(tmp_path / name))) as server:
        answer, head = await ask(server, get() + get(method="HEAD"), ["GET", "HEAD"])
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, b"content")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (head.headers["content-length"], head.body) == ("7", b"")


async def test_a_file_may_be_given_another_type_and_more_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    fields = {"Cache-Control": "max-age=60"}
    async with serve(on("/", lambda _: rawws.Response.file(str(path), fields, "text/markdown"))) as server:
        [answer] = await ask(server, get())
        assert (answer.headers["cache-control"], answer.headers["content-type"]) == ("max-age=60", "text/markdown")


async def test_the_type_of_a_file_may_be_among_its_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    async with serve(on("/", lambda _: rawws.Response.file(path, {"Content-Type": "text/x"}, "text/y"))) as server:
        [answer] = await ask(server, get())
        assert answer.headers["content-type"] == "text/x"


async def test_a_client_that_has_the_file_gets_304(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    os.utime(path, (1_000_000_000, 1_000_000_000.5))
    async with serve(on("/", lambda _: rawws.Response.file(path))) as server:
        [answer] = await ask(server, get())
        etag, modified = answer.headers["etag"], answer.headers["last-modified"]
        later, earlier = formatdate(1_000_000_001, usegmt=True), formatdate(999_999_999, usegmt=True)
        for field, status in (
            (f"If-None-Match: {etag}", 304),
            (f'If-None-Match: "x", W/{etag}', 304),
            (f'If-None-Match: "x",{etag},"y"', 304),
            ("If-None-Match: *", 304),
            ('If-None-Match: "x"', 200),
            (f"If-Modified-Since: {modified}", 304),
            (f"If-Modified-Since: {later}", 304),
            (f"If-Modified-Since: {earlier}", 200),
            ("If-Modified-Since: yesterday", 200),
            ("If-Modified-Since: Mon, 99 Jan 99999999999 00:00:00 GMT", 200),
        ):
            answer, _ = await ask(server, get("/", field) + get(), ["GET", "GET"])
            assert (answer.status, answer.headers["etag"]) == (status, etag)
        both = get("/", 'If-None-Match: "x"', f"If-Modified-Since: {modified}")
        [answer] = await ask(server, both)
        assert answer.status == 200


@pytest.mark.parametrize("name", ["none", ".", "a/b", "fifo"])
async def test_what_is_no_file_is_404(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    async with serve(on("/", lambda _: rawws.Response.file(tmp_path / name))) as server:
        [answer] = await ask(server, get())
        assert (answer.status, answer.body) == (404, b"there is no such file\n")


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1_000_000])
async def test_a_file_arrives_whole(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    content = os.urandom(size)
    path.write_bytes(content)
    async with serve(on("/", lambda _: rawws.Response.file(path))) as server:
        answers = await ask(server, get() * 3 + get(method="HEAD") + get("/", version="1.0"),
                            ["GET", "GET", "GET", "HEAD", "GET"])  # fmt: skip
        assert [answer.body for answer in answers] == [content] * 3 + [b""] + [content]


async def test_a_large_file_is_not_held_for_a_client_that_reads_slowly(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    content = os.urandom(3_000_000)
    path.write_bytes(content)
    async with rawws.serve(on("/", lambda _: rawws.Response.file(path)), sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        await peer.write(get("/", "Connection: close"))
        await eventually(lambda: any(ws.buffered > 65536 for ws in server.settings.connections))
        await asyncio.sleep(0.05)
        [ws] = server.settings.connections
        assert ws.buffered < 200_000
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert answer.body == content
        peer.close()


@contextlib.asynccontextmanager
async def half_sent(path: Path) -> AsyncIterator[tuple[rawws.Server, Peer]]:
    """A large file, in the middle of being sent to a client that does not read."""
    async with rawws.serve(on("/", lambda _: rawws.Response.file(path)), sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        await peer.write(get())
        await eventually(lambda: any(ws.buffered > 65536 for ws in server.settings.connections))
        yield server, peer


async def test_a_file_whose_client_goes_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(3_000_000))
    async with half_sent(path) as (server, peer):
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        await eventually(lambda: not any(str(path) in name for name in open_files()))


def open_files() -> list[str]:
    """Return what this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(str(Path(f"/proc/self/fd/{number}").readlink()))
        except FileNotFoundError:
            pass
    return found


async def test_a_file_that_is_cut_while_it_is_sent_ends_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(3_000_000))
    async with half_sent(path) as (server, peer):
        os.truncate(path, 100_000)
        assert len(await peer.read_to_end()) < 3_000_000
        peer.close()
        await eventually(lambda: not server.settings.connections)


@pytest.mark.parametrize("name", ["n" * 300, "n/" * 3000, "loop", "loop/x", "file/x", "a\0b"])
async def test_a_name_that_no_file_can_have_is_404(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    async with serve(on("/", lambda _: rawws.Response.file(f"{tmp_path}/{name}"))) as server:
        [answer] = await ask(server, get())
        assert (answer.status, answer.body) == (404, b"there is no such file\n")


@contextlib.asynccontextmanager
async def folder(tmp_path: Path) -> AsyncIterator[tuple[Path, Path, rawws.Server]]:
    """A folder that is served, behind a link, and one beside it that is not."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for each in (inside / "sub", outside):
        each.mkdir(parents=True)
        (each / "a.txt").write_text(each.name)
    (tmp_path / "served").symlink_to("inside")
    routes = rawws.Routes()
    routes.get("/{name:path}")(
        lambda asked: rawws.Response.file(
            asked.query.get("path", asked.path_params["name"]), folder=tmp_path / "served"
        )
    )
    async with serve(routes) as server:
        yield inside, outside, server


async def found_at(server: rawws.Server, target: str) -> tuple[int, bytes]:
    [answer] = await ask(server, get(target))
    return answer.status, answer.body


NOTHING = (404, b"there is no such file\n")


async def test_a_link_that_stays_in_its_folder_is_followed_and_one_that_leads_out_is_404(tmp_path: Path) -> None:
    async with folder(tmp_path) as (inside, outside, server):
        (inside / "in").symlink_to("sub/a.txt")
        (inside / "sub" / "up").symlink_to("../in")
        (inside / "absolute").symlink_to(inside / "sub")
        (inside / "out").symlink_to("../outside/a.txt")
        (inside / "out_absolute").symlink_to(outside / "a.txt")
        (inside / "out_folder").symlink_to(outside)
        (inside / "sub" / "to_out").symlink_to("../out")
        (inside / "dangling").symlink_to("none")
        (inside / "secrets").symlink_to("/proc/self/environ")
        for target in ("/sub/a.txt", "/in", "/sub/up", "/absolute/a.txt"):
            assert await found_at(server, target) == (200, b"sub")
        for target in ("/out", "/out_absolute", "/out_folder/a.txt", "/sub/to_out", "/dangling", "/secrets", "/sub"):
            assert await found_at(server, target) == NOTHING


@pytest.mark.parametrize("path", ["../outside/a.txt", "sub/../../outside/a.txt", "/etc/passwd", ".", "", "..", "a%00b"])
async def test_no_path_leads_out_of_its_folder(path: str, tmp_path: Path) -> None:
    async with folder(tmp_path) as (_, _, server):
        assert await found_at(server, f"/x?path={path}") == NOTHING


async def test_a_path_may_be_whole_where_it_is_in_its_folder(tmp_path: Path) -> None:
    async with folder(tmp_path) as (inside, _, server):
        assert await found_at(server, f"/x?path={inside}/sub/a.txt") == (200, b"sub")
        assert await found_at(server, "/x?path=sub/../sub/a.txt") == (200, b"sub")


async def test_a_folder_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    async with serve(on("/", lambda _: rawws.Response.file("a", folder=tmp_path / "none"))) as server:
        assert await found_at(server, "/") == NOTHING


@pytest.mark.parametrize("swapped", ["sub", "sub/a.txt"])
def test_a_link_that_comes_between_the_look_and_the_opening_leads_nowhere(
    swapped: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write into the folder changes a folder, or the file, into a link at the worst moment."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "a.txt").write_text("in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("out")
    response = rawws.Response.file("sub/a.txt", folder=tmp_path / "in")
    look = os.path.realpath

    def look_and_swap(path: Any, **options: Any) -> Any:
        found = look(path, **options)
        victim = tmp_path / "in" / swapped
        if str(found).endswith("a.txt") and not victim.is_symlink():
            victim.rename(tmp_path / "gone")
            victim.symlink_to(tmp_path / "out" / ("a.txt" if swapped.endswith("txt") else ""))
        return found

    monkeypatch.setattr(os.path, "realpath", look_and_swap)
    with pytest.raises(rawws.HttpError, match="there is no such file"):
        response.open(rawws.Headers())


def test_where_the_system_has_no_descriptors_of_folders_the_same_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "supports_dir_fd", set())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("x")
    (tmp_path / "in" / "out").symlink_to("/etc/passwd")
    _, file = rawws.Response.file("a", folder=tmp_path / "in").open(rawws.Headers())
    assert file is not None
    file.close()
    with pytest.raises(rawws.HttpError, match="there is no such file"):
        rawws.Response.file("out", folder=tmp_path / "in").open(rawws.Headers())


def test_a_fifo_that_comes_between_the_look_and_the_opening_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    look = os.stat

    def look_and_swap(name: Any, **options: Any) -> os.stat_result:
        found = look(name, **options)
        if str(name) == str(path):
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", look_and_swap)
    with pytest.raises(rawws.HttpError, match="there is no such file"):
        rawws.Response.file(path).open(rawws.Headers())


async def test_json_is_never_a_page_and_who_says_otherwise_is_believed() -> None:
    name = "x-content-type-options"
    for value, expected in (
        ({"a": 1}, "nosniff"),
        (rawws.Response.json([1]), "nosniff"),
        (rawws.Response(200, "[1]", content_type="application/json"), "nosniff"),
        (rawws.Response.json([1], headers={"X-Content-Type-Options": "none"}), "none"),
    ):
        async with serve(on("/", lambda _, value=value: value)) as server:
            [answer] = await ask(server, get())
            assert answer.headers[name] == expected


@pytest.mark.parametrize("later", [False, True])
async def test_the_log_of_an_endpoint_that_fails_names_the_request(logged: Logged, later: bool) -> None:
    def fail(_: rawws.HttpRequest) -> None:
        raise KeyError("x")

    async def fail_later(asked: rawws.HttpRequest) -> None:
        fail(asked)

    async with serve(on("/here", fail_later if later else fail)) as server:
        [answer] = await ask(server, get("/here?a=%1b"))
        assert answer.status == 500
    logged.take("request failed: GET /here?a=%1b", KeyError)


async def test_a_file_on_its_way_has_close_timeout_when_the_server_ends_however_much_of_it_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(3_000_000))
    routes = on("/", lambda _: rawws.Response.file(path))
    async with rawws.serve(routes, sock=narrow(), close_timeout=30) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        await peer.write(get("/", "Connection: close"))
        await eventually(lambda: any(ws.buffered > 65536 for ws in server.settings.connections))
        [ws] = server.settings.connections
        server.close()
        due, before = ws.deadline, ws.bytes_sent
        assert 0 < due <= clock.monotonic() + 30
        while ws.bytes_sent < before + 300_000:
            assert await peer.read()
        assert ws.deadline == due
        peer.close()
