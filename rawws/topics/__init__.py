"""Topics: publications to subscribers, and to those who come back for what they missed."""

from rawws.http.requests import LastEventId
from rawws.net.identity import Identity

from .asgi import scope_of
from .asgi_socket import AsgiSocket
from .attendance import SubscriptionObserver
from .backplane import History
from .calls import CallError
from .cursors import CursorError
from .figures import HubStats
from .history import Notice, Publication
from .hub import Hub
from .names import TopicError
from .pages import HistoryPage
from .policies import Policy
from .presence import Present
from .rawws_v1 import HubHandler
from .rules import Refused
from .subscribers import PublishResult, Receiver, Subscriber, Subscription

__all__ = [
    "AsgiSocket",
    "CallError",
    "CursorError",
    "History",
    "HistoryPage",
    "Hub",
    "HubHandler",
    "HubStats",
    "Identity",
    "LastEventId",
    "Notice",
    "Policy",
    "Present",
    "Publication",
    "PublishResult",
    "Receiver",
    "Refused",
    "Subscriber",
    "Subscription",
    "SubscriptionObserver",
    "TopicError",
    "scope_of",
]
