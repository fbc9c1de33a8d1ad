"""Server: listening sockets, their connections, and who is let in."""
