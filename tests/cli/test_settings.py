"""What the command line is told beside its words: variables, sockets, keys and a program that changes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from websockets.sync.client import connect

import rawws
import rawws.sync
from rawws.cli.environment import options_in
from rawws.cli.main import parse, parser
from rawws.server.options import check_origins
from tests.cli.commands import echoes, fails, port, rawws_command, run, start
from tests.processes import LOOPBACK, ROOT, Process, ProcessError, eventually

# -- the environment


def test_options_come_from_variables_and_the_command_line_counts_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RAWWS_MAX_SIZE", "9"), ("RAWWS_ACCESS_LOG", "yes"), ("RAWWS_LOG_LEVEL", "debug")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PORT", "0")
    with start(here, "serve", "chat:echo", "--log-level", "info") as process:
        assert port(process) != 8765
        with connect(f"ws://{LOOPBACK}:{port(process)}") as ws:
            ws.send("ten bytes!")
            with pytest.raises(Exception, match="limit"):
                ws.recv(timeout=60)
        with pytest.raises(HTTPError, match="426"):
            urlopen(f"http://{LOOPBACK}:{port(process)}/", timeout=60)
        eventually(lambda: "rawws.access" in process.output)
    assert "DEBUG" not in process.output


@pytest.mark.parametrize(
    ("variables", "words", "status"),
    [
        ({"RAWWS_MAX_SIZE": "1g"}, "RAWWS_MAX_SIZE: '1g' is not a number of bytes", 2),
        ({"RAWWS_LOG_LEVEL": "loud"}, "RAWWS_LOG_LEVEL: invalid choice: 'loud'", 2),
        ({"PORT": "http"}, "PORT: 'http' is not a port", 2),
        ({"PORT": "1", "RAWWS_PORT": "65536"}, "RAWWS_PORT: '65536' is not a port", 2),
        ({"RAWWS_ASGI": "maybe"}, "RAWWS_ASGI is 'maybe', allowed are 1, true, yes, on, 0, false, no, off", 2),
        ({"RAWWS_FACTORY": "1"}, "--factory needs --asgi", 2),
        ({"RAWWS_PROXY_PROTOCOL": "yes"}, "proxy_protocol is True without trusted_proxies, needed are those", 1),
        ({"RAWWS_ASGI": "1", "RAWWS_PURE": "1"}, "chat:echo: app takes (ws)", 1),
    ],
)
def test_a_wrong_variable_is_named(
    here: Path, variables: dict[str, str], words: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert words in fails(run(here, "serve", "chat:echo"), status)


@pytest.mark.parametrize("value", ["yes", "no"])
@pytest.mark.parametrize("word", ["--compression", "--no-compression"])
def test_the_command_line_counts_before_the_variable_also_where_it_says_no(word: str, value: str) -> None:
    assert options_in({"RAWWS_COMPRESSION": value}, ["serve", "chat:echo", word]) == {}


KUBERNETES = {
    "RAWWS_PORT": "tcp://10.3.247.17:8765",
    "RAWWS_PORT_8765_TCP": "tcp://10.3.247.17:8765",
    "RAWWS_PORT_8765_TCP_ADDR": "10.3.247.17",
    "RAWWS_PORT_8765_TCP_PORT": "8765",
    "RAWWS_PORT_8765_TCP_PROTO": "tcp",
    "RAWWS_PORT_53_UDP": "udp://10.3.247.17:53",
    "RAWWS_SERVICE_HOST": "10.3.247.17",
    "RAWWS_SERVICE_PORT": "8765",
    "RAWWS_SERVICE_PORT_HTTP_WS": "8765",
    "RAWWS_CANARY_SERVICE_HOST": "10.3.247.18",
    "RAWWS_CANARY_SERVICE_PORT": "8765",
    "RAWWS_CANARY_PORT": "tcp://10.3.247.18:8765",
    "RAWWS_CANARY_PORT_8765_TCP": "tcp://10.3.247.18:8765",
}


def test_what_kubernetes_says_of_a_service_of_this_name_is_no_option(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options_in(KUBERNETES, []) == {}
    # What else there is counts as without them.
    assert options_in({**KUBERNETES, "PORT": "80", "RAWWS_MAX_SIZE": "9"}, []) == {
        "PORT": "--port=80",
        "RAWWS_MAX_SIZE": "--max-size=9",
    }
    assert options_in({"RAWWS_PORT": "80", "PORT": "81"}, []) == {"RAWWS_PORT": "--port=80"}
    assert options_in({"RAWWS_PORT": "tcp:80"}, []) == {"RAWWS_PORT": "--port=tcp:80"}
    for name, value in {**KUBERNETES, "PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    with start(here, "serve", "chat:echo") as process:
        assert process.wait_for(lambda text: text.endswith("\n"), "a whole line").count("\n") == 1
        assert port(process) != 8765


@pytest.mark.parametrize("words", [["--port", "65536"], ["--port=65536"]])
def test_what_stands_on_the_command_line_is_not_looked_for_elsewhere(
    here: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "nonsense")
    assert "argument --port: '65536' is not a port" in fails(run(here, "serve", "chat:echo", *words), 2)


def test_a_variable_that_is_no_option_is_told_and_ignored(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAWWS_MAXSIZE", "1")
    monkeypatch.setenv("RAWWS_COLOUR", "blue")
    monkeypatch.setenv("RAWWS_COMPRESSION", "no")
    monkeypatch.setenv("RAWWS_UDS", "")
    found = run(here, "serve", "nowhere:echo").stderr.splitlines()
    assert sorted(found[:2]) == [
        "rawws: RAWWS_COLOUR is no option; it is ignored",
        "rawws: RAWWS_MAXSIZE is no option, RAWWS_MAX_SIZE is one; it is ignored",
    ]
    assert found[2].startswith("rawws: cannot import 'nowhere'")


@pytest.mark.parametrize(("text", "size"), [("65536", 65_536), ("64k", 65_536), ("12M", 12 << 20)])
def test_a_size_is_in_bytes_or_in_1024_of_them_or_in_1024_of_these(text: str, size: int) -> None:
    assert parser().parse_args(["serve", "chat:echo", "--max-size", text]).max_size == size


def test_every_option_of_serve_can_be_a_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []
    for action in parser().commands["serve"]._actions:
        for option in action.option_strings:
            if not option.startswith("--") or option == "--help" or option.startswith("--no-"):
                continue
            flag = action.nargs == 0
            variable = f"RAWWS_{option[2:].replace('-', '_').upper()}"
            with monkeypatch.context() as environment, contextlib.suppress(SystemExit):
                environment.setenv(variable, "maybe" if flag else "no such thing")
                parse(parser(), ["serve", "nowhere:echo"])
            said = capsys.readouterr().err
            assert f"{variable} is no option" not in said
            if flag:
                assert f"{variable} is 'maybe', allowed are" in said
            tried.append(variable)
    assert len(tried) > 40
    monkeypatch.setenv("RAWWS_NO_SUCH", "1")
    parse(parser(), ["serve", "nowhere:echo"])
    assert "RAWWS_NO_SUCH is no option" in capsys.readouterr().err


# -- mistakes that say what was meant


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["chat:echo", "--prot", "1"], "unrecognized arguments: --prot 1 (did you mean --port?)"),
        (["chat:echo", "--maxsize=1"], "unrecognized arguments: --maxsize=1 (did you mean --max-size?)"),
        (["chat:echo", "extra"], "unrecognized arguments: extra"),
        (["chat:echo", "--origins", "example.com"], "'example.com', allowed are a scheme, a host and maybe a port"),
        (["chat:echo", "--origins", "a.example:81"], "and maybe a port, such as https://a.example:81"),
        (["chat:echo", "--origins", "https://a.example/chat"], "such as https://a.example"),
        (["chat:echo", "--origins", "https://"], "such as https://example.com"),
        (["chat:echo", "--drain-grace", "soon"], "'soon' is not a time in seconds"),
        (["chat:echo", "--drain-timeout", "0"], "'0' is not a time in seconds"),
        (["chat:echo", "--fd", "three"], "'three' is not the number of a descriptor, for example 3"),
        (["chat:echo", "--fd", "3", "--port", "1"], "--fd stands for --host, --port and --uds"),
        (["chat:echo", "--fd", "3", "--workers", "2"], "--workers shares a port, not a socket that was inherited"),
        (["chat:echo", "--uds", "x", "--workers", "2"], "--workers shares a port, not a unix socket"),
        (["chat:echo", "--fd", "2147483648"], "'2147483648' is not the number of a descriptor, for example 3"),
        (["chat:echo", "--fd", "9" * 30], "' is not the number of a descriptor, for example 3"),
        (["chat:echo", "--ssl-ca-certs", "x"], "--ssl-ca-certs needs --ssl-certfile"),
        (["chat:echo", "--uds-mode", "0"], "--uds-mode needs --uds"),
        (["chat:echo", "--root-path", "/at"], "--root-path needs --asgi"),
        (["chat:echo", "--lifespan", "off"], "--lifespan needs --asgi"),
        (["chat:echo", "--admin-key-file", "x"], "--admin-key-file needs --admin"),
        (["./chat.py:echo"], "'./chat.py' is not the name of a module: of a file chat.py, that is chat"),
        (["rooms/chat:echo"], "'rooms/chat' is not the name of a module"),
    ],
)  # fmt: skip
def test_a_mistaken_option_says_what_was_meant(here: Path, words: list[str], meant: str) -> None:
    assert meant in fails(run(here, "serve", *words), 2)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("chatt:echo", "or installed; did you mean 'chat'?"),
        ("chat:ecko", "'chat' has no 'ecko'; did you mean 'echo'?"),
        ("chat:Namespace.shot", "'chat' has no 'Namespace.shot'; did you mean 'shout'?"),
    ],
)
def test_a_mistaken_module_or_name_says_what_was_meant(here: Path, target: str, meant: str) -> None:
    assert fails(run(here, "serve", target), 1).endswith(meant)


@pytest.mark.parametrize("origins", ["example.com", ["https://a.example", "b.example"], "https://a.example/"])
def test_an_origin_that_no_browser_sends_is_refused(origins: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"allowed are a scheme, a host and maybe a port, such as https://[ab\w]"):
        check_origins(origins)


# -- what is logged


def test_the_log_can_be_json_one_object_a_line(here: Path) -> None:
    (here / "failing.py").write_text('async def fail(ws):\n    raise ValueError("no \\"data\\"\\nbase")\n')
    with start(here, "serve", "failing:fail", "--port", "0", "--log-json", "--access-log") as process:
        with connect(f"ws://{LOOPBACK}:{port(process)}") as ws, pytest.raises(Exception, match="1011"):
            ws.recv(timeout=60)
        eventually(lambda: "connection handler failed" in process.output)
    logged = [json.loads(line) for line in process.output.splitlines()]
    assert re.fullmatch(r"listening on ws://127\.0\.0\.1:\d+ \(rawws .*; Ctrl-C ends it\)", logged[0]["message"])
    assert (logged[0]["level"], logged[0]["logger"]) == ("info", "rawws.cli")
    [failed] = [entry for entry in logged if entry["message"].startswith("connection handler failed")]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", failed["time"])
    assert (failed["level"], failed["logger"], type(failed["process"])) == ("error", "rawws.server", int)
    assert failed["exception"].splitlines()[-2:] == ['ValueError: no "data"', "base"]


@pytest.mark.parametrize("words", [["--admin", f"{LOOPBACK}:0"], ["--admin", f"{LOOPBACK}:0", "--workers", "2"]])
def test_all_that_is_said_is_json_where_the_log_is(here: Path, words: list[str]) -> None:
    process = Process(rawws_command("serve", "chat:echo", "--port", "0", "--log-json", *words), cwd=here)
    with process:
        process.wait_for(lambda output: output.count("\n") == 2, "both lines")
        process.send_signal(signal.SIGTERM)
        process.result(60)
    said = [json.loads(line)["message"] for line in process.output.splitlines()]
    assert sorted(text.partition(" ")[0] for text in said[:2]) == ["admin", "listening"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nothing:echo"], "cannot import 'nothing': there is no module 'nothing' in "),
        (["chat:echo", "--fd", "77"], "cannot listen on descriptor 77: Bad file descriptor"),
    ],
)
def test_what_it_fails_with_is_json_where_the_log_is(here: Path, words: list[str], reason: str) -> None:
    failed = run(here, "serve", "--log-json", *words)
    assert (failed.returncode, failed.stdout) == (1, "")
    [line] = [json.loads(line) for line in failed.stderr.splitlines()]
    assert line["message"].startswith(reason)
    assert (line["level"], line["logger"]) == ("error", "rawws.cli")


# -- where it listens, and how it ends


def test_a_socket_that_was_inherited_is_listened_on(here: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        number = listening.fileno()
        process = Process(rawws_command("serve", "chat:echo", "--fd", str(number)), cwd=here, inherits=[number])
        with process:
            process.wait_for(lambda output: "Ctrl-C ends it" in output, "it says where it listens")
            assert port(process) == listening.getsockname()[1]
            with connect(f"ws://{LOOPBACK}:{port(process)}") as ws:
                assert echoes(ws) == "Grüße"


def test_a_descriptor_that_is_no_socket_is_one_line(here: Path) -> None:
    assert "cannot listen on descriptor 77: Bad file descriptor" in fails(
        run(here, "serve", "chat:echo", "--fd", "77"), 1
    )
    line = fails(run(here, "serve", "chat:echo", "--fd", "0"), 1)
    assert re.search(r"cannot listen on descriptor 0: ", line)


def test_a_socket_that_cannot_be_listened_on_is_one_line(here: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket(socket.AF_UNIX) as nameless:
        datagrams.bind((LOOPBACK, 0))
        for sock in (datagrams, nameless):
            number = sock.fileno()
            process = Process(rawws_command("serve", "chat:echo", "--fd", str(number)), cwd=here, inherits=[number])
            with process, pytest.raises(ProcessError, match="ended with status 1"):
                process.result(60)
            said = f"rawws: cannot listen on descriptor {number}: it is no stream socket with an address\n"
            assert process.output == said


@pytest.mark.parametrize("words", [["--drain-grace", "0"], ["--drain-timeout", "off"]])
def test_a_drain_may_be_without_a_grace_and_without_an_end(here: Path, words: list[str]) -> None:
    with start(here, "serve", "chat:echo", "--port", "0", *words) as process:
        os.kill(process.pid, signal.SIGTERM)
        process.result(60)


# -- TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(here: Path, authority: trustme.CA) -> list[str]:
    """The options of a server whose key is encrypted."""
    certificate = authority.issue_cert(LOOPBACK)
    certificate.cert_chain_pems[0].write_to_path(here / "cert.pem")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"open sesame")
    encrypted = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (here / "key.pem").write_bytes(encrypted)
    authority.cert_pem.write_to_path(here / "ca.pem")
    return ["serve", "chat:echo", "--port", "0", "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"]


def test_a_key_may_be_encrypted(here: Path, authority: trustme.CA, secured: list[str]) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with start(here, *secured, env={"RAWWS_SSL_KEYFILE_PASSWORD": "open sesame"}) as process:
        with rawws.sync.connect(f"wss://{LOOPBACK}:{port(process)}", ssl=trusting) as ws:
            assert echoes(ws) == "Grüße"


@pytest.mark.parametrize(
    ("words", "env", "spoken"),
    [([], {}, "h2"), (["--http2", "no-websocket"], {}, "h2"), ([], {"RAWWS_HTTP2": "off"}, "http/1.1")],
)
def test_in_tls_http2_is_spoken_unless_it_is_switched_off(
    here: Path, authority: trustme.CA, secured: list[str], words: list[str], env: dict[str, str], spoken: str
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    with start(here, *secured, *words, env={"RAWWS_SSL_KEYFILE_PASSWORD": "open sesame", **env}) as process:
        with socket.create_connection((LOOPBACK, port(process)), timeout=60) as plain:
            with trusting.wrap_socket(plain, server_hostname=LOOPBACK) as sock:
                assert sock.selected_alpn_protocol() == spoken


def test_the_password_of_a_key_is_a_variable_for_the_demo_too(here: Path, secured: list[str]) -> None:
    with start(here, "demo", *secured[2:], env={"RAWWS_SSL_KEYFILE_PASSWORD": "open sesame"}) as process:
        assert process.output.startswith("open https://")


@pytest.mark.parametrize(("words", "first"), [([], b"HTTP/1.1 505 "), (["--http2", "on"], b"\0\0")])
def test_without_tls_http2_is_spoken_where_it_is_asked_for(here: Path, words: list[str], first: bytes) -> None:
    with start(here, "serve", "chat:echo", "--port", "0", *words) as process:
        with socket.create_connection((LOOPBACK, port(process)), timeout=60) as sock:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            assert sock.recv(1000).startswith(first)


def test_a_key_that_stays_encrypted_is_one_line(here: Path, secured: list[str]) -> None:
    line = fails(run(here, *secured), 1)
    assert line.endswith("with key key.pem: the key is encrypted, --ssl-keyfile-password decrypts it")
    line = fails(run(here, *secured, "--ssl-keyfile-password", "abracadabra"), 1)
    assert "cannot use certificate cert.pem with key key.pem: " in line
    assert "abracadabra" not in line


def test_clients_may_need_a_certificate(here: Path, authority: trustme.CA, secured: list[str]) -> None:
    words = ["--ssl-keyfile-password", "open sesame", "--ssl-ca-certs", "ca.pem"]
    trusting, known = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    authority.configure_trust(known)
    authority.issue_cert("client.example").configure_cert(known)
    with start(here, *secured, *words) as process:
        with rawws.sync.connect(f"wss://{LOOPBACK}:{port(process)}", ssl=known) as ws:
            assert echoes(ws) == "Grüße"
        with pytest.raises((OSError, rawws.RawwsError)):
            rawws.sync.connect(f"wss://{LOOPBACK}:{port(process)}", ssl=trusting)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ssl-ca-certs", "none.pem"], "cannot read authorities none.pem: No such file or directory"),
        (["--ssl-ca-certs", "chat.py"], "cannot use authorities chat.py: "),
    ],
)
def test_authorities_that_cannot_be_had_are_one_line(
    here: Path, secured: list[str], words: list[str], said: str
) -> None:
    assert said in fails(run(here, *secured, "--ssl-keyfile-password", "open sesame", *words), 1)


# -- a program that changes


def test_reload_starts_again_when_the_program_changes(here: Path) -> None:
    def served(process: Process, times: int) -> str:
        process.wait_for(lambda output: output.count("Ctrl-C ends it") == times, f"it serves, {times}")
        found = re.findall(r"://\S+:(\d+) ", process.output)
        with connect(f"ws://{LOOPBACK}:{found[-1]}") as ws:
            return str(echoes(ws))

    with start(here, "serve", "chat:echo", "--port", "0", "--reload") as process:
        assert served(process, 1) == "Grüße"
        text = (here / "chat.py").read_text()
        (here / "chat.py").write_text(text.replace("ws.send(message)", "ws.send(message + '!')"))
        assert served(process, 2) == "Grüße!"
        (here / "chat.py").write_text("def half(:\n")
        process.wait_for(lambda output: "cannot import 'chat': SyntaxError" in output, "it says what is wrong")
        (here / "chat.py").write_text(text)
        assert served(process, 3) == "Grüße"
        assert process.output.count("chat.py changed, starting again") == 3
        os.kill(process.pid, signal.SIGTERM)
        process.result(60)
    assert "Traceback" not in process.output


def test_reload_says_what_it_needs(here: Path) -> None:
    (here / "watchfiles.py").write_text("raise ImportError\n")
    env = {**os.environ, "PYTHONPATH": f"{here}:{ROOT}"}
    command = rawws_command("serve", "chat:echo", "--reload")
    found = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert fails(found, 1) == "rawws: --reload needs watchfiles: pip install 'rawws[reload]'"
