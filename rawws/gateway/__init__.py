"""Gateway: a dedicated WebSocket service, which applications in any language reach by HTTP (`rawws gateway`)."""
