"""FastAPI: models in JSON, a dependency that guards a WebSocket, a chat, a background task."""

from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException, status
from pydantic import BaseModel

app = FastAPI()
people: dict[str, WebSocket] = {}
log: list[str] = []


class Item(BaseModel):
    name: str
    price: float


@app.post("/items", status_code=201)
async def add(item: Item, tasks: BackgroundTasks) -> Item:
    tasks.add_task(log.append, item.name)
    return item


@app.get("/log")
def read_log() -> list[str]:
    return log


async def person(ws: WebSocket, token: str | None = None) -> str:
    if token is None:
        raise WebSocketException(status.WS_1008_POLICY_VIOLATION)
    return token


@app.websocket("/chat")
async def chat(ws: WebSocket, name: Annotated[str, Depends(person)]) -> None:
    await ws.accept()
    people[name] = ws
    try:
        while True:
            text = await ws.receive_text()
            for other in people.values():
                await other.send_text(f"{name}: {text}")
    except WebSocketDisconnect as end:
        log.append(f"{name} left with {end.code}")
        del people[name]


@app.websocket("/fails")
async def fails(ws: WebSocket) -> None:
    await ws.accept()
    raise WebSocketException(4000, "no more")
