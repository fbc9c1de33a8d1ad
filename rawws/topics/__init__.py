"""Topics: publications to subscribers, and to those who come back for what they missed."""

from .history import CursorError, History, Publication
from .hub import Hub, Stats
from .names import TopicError
from .policies import Policy
from .presence import Present
from .rawws_v1 import HubHandler
from .subscribers import Published, Subscription

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
