"""The protocol without I/O: bytes in, events and bytes out (RFC 6455, RFC 7692, RFC 9112)."""
