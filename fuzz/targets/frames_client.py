"""Frames as a client reads them.

Invariant: that of `frames_server`, for octets that must not be masked, and answers that are.
"""

from __future__ import annotations

from functools import partial

from fuzz.connections import SEEDS, WORDS, make_frames
from fuzz.target import Target

TARGET = Target(partial(make_frames, role="CLIENT"), SEEDS["CLIENT"], WORDS["CLIENT"])
