"""What people look for is found: each word leads to a place that there is, and each kind of reader to a page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.processes import ROOT

DOCS: Final = ROOT / "docs"
# By which words others speak of what these pages name in their own way.
WORDS: Final = """
authentication, autoscaling, backoff, backpressure, broadcast, bundler, Celery, CORS, CRDT, debug, Django, Docker,
EventSource, FAQ, FastAPI, Flask, graceful shutdown, health check, heartbeat, horizontal scaling, HTTPS, JWT, keepalive,
Kubernetes, load balancer, long polling, metrics, monitoring, npm, PostgreSQL, presence, pub/sub, rate limit, React,
reconnect, Redis, reverse proxy, rolling restart, room, Socket.IO, sticky sessions, threads, timeout, TLS, TypeScript,
unit test, Vue, webhook, Yjs, zero downtime
""".replace("\n", " ").split(",")
# On which page somebody would look who does not know the table.
PLACES: Final = {
    "graceful shutdown": "run/operations.md",
    "rolling restart": "run/operations.md",
    "zero downtime": "run/operations.md",
    "heartbeat": "use/options.md",
    "keepalive": "use/options.md",
    "rate limit": "use/options.md",
    "JWT": "use/access.md",
    "authentication": "use/access.md",
    "CORS": "use/http.md",
    "npm": "use/bundlers.md",
    "React": "use/bundlers.md",
    "Vue": "use/bundlers.md",
    "sticky sessions": "run/scaling.md",
    "horizontal scaling": "run/scaling.md",
    "reconnect": "use/javascript.md",
    "backoff": "use/client.md",
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_every_word_is_in_the_table_which_is_sorted() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", read(DOCS / "reference" / "names.md"), re.MULTILINE)[1:]
    assert all("](" in places for _, places in rows)
    first = [words.lower() for words, _ in rows]
    assert first == sorted(first)
    known = [word.strip() for words, _ in rows for word in re.sub(r"\(.*?\)", "", words).split(",")]
    missing = [word.strip() for word in WORDS if not any(word.strip() == each for each in known)]
    assert missing == []
    assert len(known) == len(set(known))


@pytest.mark.parametrize("word", PLACES)
def test_a_word_stands_where_somebody_would_look(word: str) -> None:
    assert word in read(DOCS / PLACES[word])


def test_the_front_page_leads_four_kinds_of_readers_in_one_step() -> None:
    front = read(DOCS / "README.md").partition("\n## ")[0]
    rows = re.findall(r"^\| \*\*(.+?)\*\*.*? \| (.+?) \| .+ \|$", front, re.MULTILINE)
    assert len(rows) == 4
    assert all("](" in begin for _, begin in rows)
