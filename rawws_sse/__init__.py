"""rawws_sse: Server-Sent Events to bytes and back, for any server, client and framework (WHATWG HTML section 9.2)."""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader

if os.environ.get("RAWWS_PURE", "") not in {"", "0"}:
    # The interpreted twin: the modules of this folder are found by their `.py` alone.
    for folder in filter(os.path.isdir, __path__):
        sys.path_importer_cache[folder] = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))

from .decoder import MAX_SIZE, Decoder
from .encoder import MAX_RETRY, encode
from .event import Event, EventTooLarge
from .stream import decode_stream, encode_stream

__all__ = [
    "MAX_RETRY",
    "MAX_SIZE",
    "Decoder",
    "Event",
    "EventTooLarge",
    "decode_stream",
    "encode",
    "encode_stream",
]
