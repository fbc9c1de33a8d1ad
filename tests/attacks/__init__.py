"""Attacks: what hostile clients send, and what it costs the server and an innocent client."""
