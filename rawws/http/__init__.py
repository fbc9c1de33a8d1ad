"""HTTP: requests, responses, routes, and the responses that last (event streams, long polls)."""
