"""Admin: what servers, hubs and connections do, to whoever looks after them: probes, figures, a page, and a hand on it.

`serve` listens for one server of this process; `rawws serve --admin` does for all workers of a server.
"""

from .application import admin_routes
from .listening import serve

__all__ = ["admin_routes", "serve"]
