"""Frames as a server reads them.

Invariant: any octets, in any pieces, give the same events, the same error and the same answer, which is a Pong for each
Ping and one Close frame. The error is a RemoteProtocolError with close code 1002, 1007 or 1009; nothing comes after it;
no message is over `max_size`; and what is held is a header, a control frame and a message of that size at the most.
"""

from __future__ import annotations

from functools import partial

from fuzz.connections import SEEDS, WORDS, make_frames
from fuzz.target import Target

TARGET = Target(partial(make_frames, role="SERVER"), SEEDS["SERVER"], WORDS["SERVER"])
