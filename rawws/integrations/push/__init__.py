"""Push: notifications to users who are not connected, by Web Push, APNs and FCM (docs/run/push.md)."""

from .apns import Apns
from .fcm import Fcm
from .messages import PushDevice, PushMessage, PushOutcome
from .sending import PushSender, PushService, PushStats
from .web_push import PUSH_HOSTS, WebPush, new_vapid_key

__all__ = [
    "PUSH_HOSTS",
    "Apns",
    "Fcm",
    "PushDevice",
    "PushMessage",
    "PushOutcome",
    "PushSender",
    "PushService",
    "PushStats",
    "WebPush",
    "new_vapid_key",
]
