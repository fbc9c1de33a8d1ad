"""Strawberry: a query over HTTP, a subscription over graphql-transport-ws."""

import asyncio
from collections.abc import AsyncGenerator

import strawberry
from strawberry.asgi import GraphQL


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str) -> str:
        return f"Hello {name}"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, target: int) -> AsyncGenerator[int, None]:
        for number in range(target):
            yield number
            await asyncio.sleep(0.01)


app: GraphQL[None, None] = GraphQL(strawberry.Schema(query=Query, subscription=Subscription))
