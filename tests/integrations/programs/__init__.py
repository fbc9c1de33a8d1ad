"""Programs: applications as their users write them, each served by our ASGI server and by uvicorn with our class."""
