"""Client: a WebSocket or an event stream of another server, through proxies and redirects."""
