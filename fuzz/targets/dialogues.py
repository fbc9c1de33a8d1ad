"""Dialogues: several clients of one hub, what they say to it in rawws.v1, and what they hear.

Invariant: whatever clients say, and whenever they read slowly or go, each hears only what docs/use/rawws.v1.md knows:
one answer to each request that has an id, in order; publications of the topics that it has, without a gap where its
policy allows none; and who came and went, which makes the list that it got that of now. When all are gone, the hub
holds nothing of them, and nothing at all when its history is too old.

An input is two octets, which choose the hub, and what is said, with 0xff between. Its first octet says who says it: one
of three clients over WebSockets, or somebody over HTTP; and whether the client then reads slowly, or reads on, or goes.
In it, "@" is where the client was last.

Envelopes, and what answers clients, are not compiled: both twins run the same lines. Histories and members are.
"""

from __future__ import annotations

import json
from asyncio import iscoroutine, sleep
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, final

from fuzz.target import Target, seed
from rawws.errors import ConnectionClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fuzz.twins import Twin

POLICIES = ("disconnect", "disconnect", "drop_oldest", "conflate")
# What each error has for a status over HTTP.
ERRORS = {"malformed": 400, "topic": 400, "pattern": 400, "cursor": 400, "key": 400, "event": 400, "size": 413,
          "limit": 429, "refused": 403}  # fmt: skip
# What is answered; to a subscription, more where the client watches or joins.
ANSWERS = {
    "subscribe": {"cursor", "recovered"},
    "unsubscribe": set[str](),
    "publish": {"cursor"},
    "presence": {"members", "count"},
    "history": {"publications", "cursor", "recovered"},
}
# Of one client; the size is that of a message, and what may wait for a client is little more.
MAX_TOPICS, MAX_SIZE, HARD_LIMIT = 3, 40, 300
# What the octets are that say who says something: "4" is client 0, who reads slowly from then on, or reads on.
HTTP, SLOW, GOES = 3, 4, 0x40


def check_answer(answer: dict[str, Any], ask: Any) -> str:
    """Check that an answer is one to what was asked; return how that ended."""
    fields = set(answer)
    if ask.id is not None:
        assert answer["id"] == ask.id, answer
        fields.remove("id")
    if "error" in fields:
        assert answer["error"] in ERRORS, answer
        # Only of a renewal is it told why: nobody here has a token.
        silent = answer["error"] == "refused" and ask.action != "renew"
        assert fields == ({"error"} if silent else {"error", "reason"}), answer
        return str(answer["error"])
    wanted = set(ANSWERS[ask.action])
    if ask.action == "subscribe":
        wanted |= ANSWERS["presence"] if ask.watch else set()
        wanted |= {"present"} if ask.joins else set()
    assert fields == wanted, answer
    assert len(answer.get("members", ())) == answer.get("count", 0), answer
    return "done"


def channel_of(topic: str, *, pattern: bool) -> str:
    """Return what a client has a topic under, or a pattern: no name of a topic begins so."""
    return f"\0{topic}" if pattern else topic


@final
class Client:
    """A client over a WebSocket, and what a hub sees of it."""

    subprotocol = "rawws.v1"
    hard_limit = HARD_LIMIT
    remote_address = ("192.0.2.1", 1)
    identity: Any = None
    token = ""

    def __init__(self, topics: Topics, hub: Any, *, whole: bool, hasty: bool) -> None:
        self.topics = topics
        self.serving = topics.clients.serve_client(hub, self)
        self.served = False
        self.congested = self.closed = False
        self.closed_with = 1013
        self.member: Any = None
        # What it said and heard that is not looked at yet; what is being answered, and how that ended.
        self.said: deque[str | bytes] = deque()
        self.heard: list[dict[str, Any]] = []
        self.asked: Any = None
        self.ended = ""
        # Whether it gets all of its topics; where it is in each of them, "" where it was not told; and whom it knows in
        # those that it watches.
        self.whole = whole
        # Whether it is answered while it reads slowly, as a HubHandler does.
        self.hasty = hasty
        self.places: dict[str, str] = {}
        self.known: dict[str, dict[str, Any]] = {}
        self.last = ""
        self.kinds: list[str] = []

    # -- what the hub calls

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> str | bytes:
        self.settle()
        while not self.said and not self.closed:  # noqa: ASYNC110 - there is no loop
            await sleep(0)
        if self.closed:
            raise StopAsyncIteration
        message = self.said.popleft()
        self.asked = self.topics.asked(message)
        if self.asked.excludes:
            # What it publishes for the others only is missing in what it gets.
            self.whole = False
        return message

    async def drain(self) -> None:
        """Wait until it reads on."""
        while self.congested and not self.closed and not self.hasty:  # noqa: ASYNC110 - as above
            await sleep(0)

    def send(self, said: Any) -> None:
        """Hear an answer or a publication."""
        if self.closed:
            raise ConnectionClosedError(None, None)
        text = said if isinstance(said, str) else self.topics.envelope.render(said)
        self.heard.append(json.loads(self.topics.encoded(text).payload))

    def follow(self, member: Any) -> None:
        """Know the member."""
        if self.closed:
            raise ConnectionClosedError(None, None)
        assert self.member is None
        self.member = member

    def unfollow(self, member: Any) -> None:
        """Know it no more."""
        assert self.member is member
        self.member = None

    def fail(self, code: int, reason: str) -> None:  # noqa: ARG002 - what every receiver has
        """Be closed."""
        self.closed = True
        self.closed_with = code
        self.kinds.append("closed")

    def close(self, code: int, reason: str) -> None:
        """Be closed, as above."""
        self.fail(code, reason)

    # -- what it does

    def turn(self) -> None:
        """Have the hub go on with it, and look at what was heard."""
        if not self.served:
            try:
                self.serving.send(None)
            except (StopIteration, ConnectionClosedError):
                assert self.closed
                self.served = True
        self.listen()

    def read(self, *, slowly: bool) -> None:
        """Read slowly, or read on."""
        self.congested = slowly
        if not slowly and self.member is not None:
            self.member.drained()

    def go(self) -> None:
        """Be gone."""
        self.closed = True
        if self.member is not None:
            self.member.lost()
        self.turn()
        assert self.served
        assert self.member is None

    # -- what it makes of what it hears

    def listen(self) -> None:
        """Look at what was heard."""
        assert self.closed_with == 1013, "the hub failed"
        heard, self.heard = self.heard, []
        for fields in heard:
            if "topic" not in fields:
                self.take_answer(fields)
            elif "cursor" in fields:
                self.take_publication(**fields)
            else:
                self.take_notice(**fields)

    def settle(self) -> None:
        """Take note that what it asked was done."""
        self.listen()
        if self.asked is None:
            return
        ask, self.asked = self.asked, None
        assert self.ended or (ask.id is None and ask.action) or ask.action == "answer", ask
        ended, self.ended = self.ended or "done", ""
        self.kinds.append(f"{ask.action} {ended}")
        if ask.action == "subscribe" and ended == "done":
            self.places.setdefault(ask.topic, "")
        elif ask.action == "unsubscribe" and ended == "done":
            self.places.pop(ask.topic, None)
            self.known.pop(ask.topic, None)

    def take_answer(self, answer: dict[str, Any]) -> None:
        """Take the one answer to what it asks."""
        assert not self.ended, answer
        self.ended = check_answer(answer, self.asked)
        assert self.asked.id is not None or self.ended != "done", answer
        if self.asked.action == "subscribe" and self.ended == "done":
            self.places[self.asked.topic] = self.last = answer["cursor"]
            if self.asked.watch:
                self.known[self.asked.topic] = {member["id"]: member["info"] for member in answer["members"]}

    def take_publication(self, topic: str, cursor: str, pattern: str | None = None, **message: Any) -> None:
        """Take a publication, behind the one before it: of its topic, or of a pattern for that."""
        if pattern is not None:
            assert topic.startswith(pattern.removesuffix("*")), (topic, pattern)
            topic = channel_of(pattern, pattern=True)
        self.check_has(topic)
        assert len(message.keys() & {"data", "base64"}) == 1, message
        assert message.keys() <= {"data", "base64", "json", "event"}, message
        epoch, _, offset = cursor.partition(":")
        if place := self.places.get(topic):
            before, _, number = place.partition(":")
            assert epoch == before, (place, cursor)
            assert int(offset) == int(number) + 1 or (int(offset) > int(number) and not self.whole), (place, cursor)
        self.places[topic] = self.last = cursor
        self.kinds += message

    def take_notice(self, topic: str, **event: dict[str, Any]) -> None:
        """Take note of who came or went."""
        self.check_has(topic)
        [(name, somebody)] = event.items()
        assert name in {"join", "leave"}, event
        assert somebody.keys() == {"id", "info", "claimed"}, event
        self.kinds.append(name)
        known = self.known.get(topic)
        if known is None or not self.whole:
            return
        if name == "join":
            assert somebody["id"] not in known, event
            known[somebody["id"]] = somebody["info"]
        else:
            assert known.pop(somebody["id"]) == somebody["info"], event

    def check_has(self, topic: str) -> None:
        """Check that it has a topic, or that it is just getting it."""
        assert topic in self.places or self.asked[:2] == ("subscribe", topic), topic


class Asked(NamedTuple):
    """What is asked for; without an action, something that is no envelope."""

    action: str
    topic: str
    id: int | None
    watch: bool = False
    joins: bool = False
    excludes: bool = False


@final
class Topics:
    """What a hub is made of by one twin."""

    def __init__(self, twin: Twin) -> None:
        self.clients = twin.load("rawws.topics.rawws_v1")
        self.requests = twin.load("rawws.topics.rawws_v1_http")
        self.envelope = twin.load("rawws.topics.envelope")
        self.encoded = twin.load("rawws.topics.core").PreparedMessage
        self.hub = twin.load("rawws.topics.hub").Hub
        history = twin.load("rawws.topics.backplane").History
        self.histories = (history(), history(count=2), history(total=9000), None)
        self.too_old = history(age=-1.0)

    def asked(self, message: str | bytes) -> Asked:
        """Return what a message asks for."""
        try:
            ask = self.envelope.parse(message)
        except self.envelope.EnvelopeError as error:
            return Asked("", "", error.id)
        joins = ask.join is not self.envelope.NOTHING
        return Asked(ask.action, channel_of(ask.topic, pattern=ask.pattern), ask.id, ask.watch, joins, ask.exclude)

    def begin(self, settings: int) -> tuple[Any, list[Client]]:
        """Return a hub, and its clients."""
        policy = POLICIES[settings & 3]

        def decide(_client: Any, action: str, topic: str) -> Any:
            # A call would need a loop.
            verdict = not topic.startswith("no") and (action, topic) != ("publish", "read") and action != "call"
            return decide_later(verdict) if settings & 16 else verdict

        def decide_pattern(_client: Any, pattern: str) -> Any:
            verdict = not pattern.startswith("no")
            return decide_later(verdict) if settings & 16 else verdict

        hub = self.hub(
            history=self.histories[settings >> 2 & 3],
            policy=policy,
            max_topics=MAX_TOPICS,
            max_size=MAX_SIZE,
            authorize=decide,
            authorize_pattern=decide_pattern,
        )
        whole, hasty = policy == "disconnect", settings & 32 != 0
        return hub, [Client(self, hub, whole=whole, hasty=hasty) for _ in range(HTTP)]

    def post(self, hub: Any, body: bytes) -> str:
        """Say something over HTTP, and return how that ended."""
        asked = self.asked(body.decode("utf-8", "replace"))
        answering = self.requests.answer_post(hub, SimpleNamespace(body=body, remote_address="", identity=None))
        response = run(answering) if iscoroutine(answering) else answering
        ended = check_answer(json.loads(response.body), asked)
        assert response.status == ERRORS.get(ended, 200), response.status
        return f"{asked.action} {ended} over HTTP"

    def end(self, hub: Any, clients: list[Client]) -> None:
        """Have all read on until all is said, and then go: nothing is left."""
        for client in clients:
            client.read(slowly=False)
        while any((client.said or client.asked) and not client.closed for client in clients):
            turn(clients)
        turn(clients)
        for client in clients:
            if client.whole and not client.closed:
                for topic, known in client.known.items():
                    assert known == {present.id: present.info for present in hub.presence(topic)}, topic
        for client in clients:
            client.go()
        left = hub.stats()
        assert (left.subscribers, left.subscriptions, left.present, left.waiting) == (0, 0, 0, 0), left
        bounds, hub._table.store.bounds = hub._table.store.bounds, self.too_old  # noqa: SLF001 - as if it were minutes later
        assert left.held <= bounds.count * left.topics, left
        assert left.held_bytes <= bounds.total, left
        left = hub.stats()
        assert (left.topics, left.held, left.held_bytes) == (0, 0, 0), left


async def decide_later(verdict: bool) -> bool:
    """Return what is decided, in another turn."""
    await sleep(0)
    return verdict


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine returns that waits for nothing but its turn."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


def turn(clients: list[Client]) -> None:
    """Have the hub go on with each client."""
    for client in clients:
        client.turn()
    # What one did, others heard.
    for client in clients:
        client.listen()


def message_of(said: bytes, cursor: str) -> str | bytes:
    """Return what is said: text, or octets that are none."""
    try:
        return said.decode().replace("@", cursor)
    except UnicodeDecodeError:
        return said


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that holds a dialogue."""
    topics = Topics(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        hub, clients = topics.begin(data[0])
        posted = ""
        for said in data[2:].split(b"\xff"):
            who = said[0] if said else 0
            if who & 3 == HTTP:
                posted = topics.post(hub, said[1:])
            elif not clients[who & 3].closed:
                client = clients[who & 3]
                client.said.append(message_of(said[1:], client.last))
                if who & SLOW:
                    client.read(slowly=not client.congested)
                turn(clients)
                if who & GOES:
                    client.go()
        topics.end(hub, clients)
        kinds = [kind for client in clients for kind in client.kinds]
        return data[0] & 3, posted, len(set(kinds)), tuple(kinds[-1:])

    return check


def dialogue(*said: str) -> bytes:
    """Return the part of an input in which this is said."""
    return b"\xff".join(text.encode() for text in said)


DIALOGUES = [
    dialogue('0{"id":1,"subscribe":"a"}', '1{"id":2,"publish":"a","data":"Hello"}', '1{"publish":"a","base64":"AP8="}'),
    dialogue('0{"id":1,"subscribe":"a"}', '0{"id":2,"unsubscribe":"a"}', '3{"id":3,"publish":"a","data":"missed"}',
             '3{"publish":"a","data":"too"}', '0{"id":4,"subscribe":"a","since":"@"}', '3{"publish":"a","data":"on"}'),
    dialogue('0{"subscribe":"a","since":"earliest"}', '3{"publish":"a","data":""}', '0{"id":1,"unsubscribe":"a"}'),
    dialogue('0{"id":1,"subscribe":"a","watch":true,"join":"Ann"}', '1{"id":2,"subscribe":"a","join":{"name":"Bob"}}',
             '2{"id":3,"subscribe":"a","join":7,"watch":true}', '1{"id":4,"unsubscribe":"a"}', 'r{"presence":"a"}',
             '0{"id":5,"presence":"a"}', '3{"id":6,"presence":"a"}'),
    dialogue('4{"id":1,"subscribe":"a"}', '0{"subscribe":"b"}', '1{"publish":"a","data":"waits"}',
             '1{"publish":"a","data":"waits"}', '1{"publish":"b","data":"too","key":"k"}', '4{"id":2,"presence":"a"}'),
    dialogue('4{"id":1,"subscribe":"a","watch":true}', '1{"id":1,"subscribe":"a","join":1}',
             *['1{"publish":"a","data":"so much that it is too much, or not"}'] * 5),
    dialogue('4{"id":1,"subscribe":"a"}', '1{"publish":"a","data":"1"}', '1{"publish":"a","data":"2"}',
             '0{"unsubscribe":"a"}', '5{"publish":"a","data":"3"}', '4{"id":2,"subscribe":"a","since":"@"}'),
    dialogue('0{"id":1,"subscribe":"a"}', '0{"subscribe":"b"}', '0{"subscribe":"c"}', '0{"id":4,"subscribe":"d"}',
             '0{"id":5,"subscribe":"a"}', '0{"id":6,"subscribe":"a","since":"a=@"}'),
    dialogue('0{"id":1,"subscribe":"no"}', '0{"publish":"read","data":""}', '3{"id":2,"publish":"no","data":""}',
             '1{"id":3,"subscribe":"read"}', '1{"id":4,"presence":"no"}', '3{"id":5,"publish":"read","data":""}'),
    dialogue('0{"id":1,"subscribe":"a","since":"@0"}', '0{"id":1,"subscribe":"a"}', '0{"id":2,"unsubscribe":"a"}',
             '0{"id":3,"subscribe":"a","since":"@0"}', '0{"id":4,"subscribe":"a","since":"x:1"}', '0{"presence":""}'),
    dialogue("0{", "1[]", "2", '3{"id":1}', '3{"id":2,"subscribe":"a"}', '0{"id":3,"publish":"a","data":"\\ud800"}',
             '3{"publish":"a","data":"' + "x" * 41 + '"}', '1{"subscribe":"a","join":"\\ud800"}', "3"),
    dialogue('p{"id":1,"subscribe":"a","join":1}', '1{"id":2,"subscribe":"a","join":2,"watch":true}',
             'q{"unsubscribe":"a"}', '2{"id":3,"publish":"a","data":"to nobody"}') + b"\xff2\x80\xff2",
    dialogue('0{"id":1,"subscribe":"a"}', '1{"id":2,"publish":"a","data":"[1]","json":true,"event":"move"}',
             '3{"publish":"a","data":"{","json":true}', '0{"id":3,"publish":"a","data":"x","exclude":true}',
             '3{"id":4,"history":"a","limit":1}', '0{"id":5,"history":"a","before":"@"}', '3{"history":"no"}',
             '0{"id":6,"renew":"token"}', '0{"id":7,"call":"f","data":1}', '0{"answer":1,"data":1}'),
    dialogue('0{"id":1,"subscribe":"a/*","pattern":true}', '1{"subscribe":"a/b"}', '0{"subscribe":"a/*"}',
             '3{"publish":"a/b","data":"1"}', '1{"id":2,"subscribe":"*","pattern":true}',
             '3{"publish":"a/*","data":"2"}', '0{"id":3,"unsubscribe":"a/*","pattern":true}',
             '3{"publish":"a/c","data":"3"}',
             '0{"id":4,"subscribe":"a/*","pattern":true,"since":"@"}', '2{"id":5,"subscribe":"no/*","pattern":true}',
             '2{"id":6,"subscribe":"a","pattern":true}', '2{"id":7,"subscribe":"b:*","pattern":true,"join":1}'),
]  # fmt: skip
WORDS = [
    *(b"\xff" + who for who in (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"p", b"q", b"r", b"t")),
    *(octets + b"\xff" for octets in DIALOGUES[3].split(b"\xff")),
    b'0{"id":1,"publish":"a","data":"x"}\xff', b'1{"id":1,"unsubscribe":"a"}\xff', b'"since":"@"', b',"since":"a=@"',
    b',"since":"earliest"', b'"id":1,', b',"join":1', b',"watch":true', b'"a"', b'"b"', b'"no"', b"@", b',"key":"k"',
    b'"\\ud800"', b'"base64":"AP8="', b"1e400", b',"pattern":true', b'"a/*"', b'"*"', b'"a/b"',
]  # fmt: skip
SEEDS = [seed(octets, settings) for octets in DIALOGUES for settings in (0, 2, 7, 8, 13, 16, 36)]
TARGET = Target(make, SEEDS, WORDS, max_length=600)
