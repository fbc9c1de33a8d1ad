"""A price feed: 10,000 changes a second of 1,000 prices, for programs; and what is new ten times a second, for pages.

`python prices.py [PORT]`, and open http://127.0.0.1:8765/. A program that reads too slowly misses what is outdated, and
never the latest price of anything: what waits for it is one change of each price at most.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from pathlib import Path

import rawws
from rawws.topics import endpoints

HERE = Path(__file__).parent
RATE = 10_000
SYMBOLS = [f"{first}{second}{third}" for first in "ABCDEFGHIJ" for second in "KLMNOPQRST" for third in "UVWXYZABCD"]

hub = rawws.Hub(
    policy=rawws.Policy("conflate", limit=len(SYMBOLS)),
    # A newcomer is given all prices by /prices or /board, and then the changes since.
    history=rawws.History(count=5000, size=16 << 20),
    authorize=lambda _client, action, topic: action == "subscribe" and topic in {"prices", "board"},
)
prices = dict.fromkeys(SYMBOLS, 100.0)
board = dict(prices)  # as pages are shown them
cursors = {topic: hub.publish(topic, "").cursor for topic in ("prices", "board")}


async def trade() -> None:
    """Change prices at random, as many as are due; ten times a second, tell pages what is new."""
    begun, made, shown = time.monotonic(), 0, 0
    new: dict[str, float] = {}
    while True:
        await asyncio.sleep(0.01)
        due = int((time.monotonic() - begun) * RATE)
        for _ in range(min(due - made, RATE // 10)):  # a process that was stopped does not make up for it
            symbol = random.choice(SYMBOLS)  # noqa: S311
            prices[symbol] = new[symbol] = round(max(1.0, prices[symbol] * (1 + random.gauss(0, 0.002))), 2)
            cursors["prices"] = hub.publish("prices", f"{symbol} {prices[symbol]}", key=symbol).cursor
        made = due
        if made >= shown + RATE // 10:
            news = json.dumps({"changes": made - shown, "prices": new})
            cursors["board"] = hub.publish("board", news).cursor
            board.update(new)
            shown, new = made, {}


routes = rawws.Routes(
    [
        rawws.Route("/", lambda _: rawws.Response.file(HERE / "prices.html")),
        rawws.Route("/style.css", lambda _: rawws.Response.file(HERE / "style.css")),
        rawws.Route("/state.js", lambda _: rawws.Response.file(HERE / "state.js")),
        rawws.Route("/prices", lambda _: {"prices": prices, "cursor": cursors["prices"]}),
        rawws.Route("/board", lambda _: {"prices": board, "cursor": cursors["board"]}),
        rawws.Route("/stats", lambda _: hub.stats()._asdict()),
        *endpoints.routes(hub, "/topics"),
    ]
)


async def main(port: int) -> None:
    """Trade and serve until Ctrl-C."""
    async with rawws.serve(routes, "127.0.0.1", port, subprotocols=["rawws.v1"]) as server:
        trading = asyncio.create_task(trade())
        await server.serve_forever()
        trading.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8765))
