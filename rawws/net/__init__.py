"""Net: TCP below WebSocket, and the WebSocket on it, in an asyncio loop."""
