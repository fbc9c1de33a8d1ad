"""Topics: publications to subscribers, and to those who come back for what they missed."""

from .clients import HubHandler
from .history import CursorError, History, Publication
from .hub import Hub, Stats
from .members import Published, Subscription
from .names import TopicError
from .policies import Policy
from .presence import Present

__all__ = [
    "CursorError",
    "History",
    "Hub",
    "HubHandler",
    "Policy",
    "Present",
    "Publication",
    "Published",
    "Stats",
    "Subscription",
    "TopicError",
]
