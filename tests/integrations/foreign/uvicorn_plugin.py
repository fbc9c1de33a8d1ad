"""A plugin for uvicorn's own tests: where they ask for uvicorn's class on the websockets library, they get ours."""

from __future__ import annotations

from typing import Any

import uvicorn.importer

THEIRS = "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol"
OURS = "rawws.integrations.uvicorn:WebSocketProtocol"
import_from_string = uvicorn.importer.import_from_string


def import_ours(import_str: Any) -> Any:
    return import_from_string(OURS if import_str == THEIRS else import_str)


uvicorn.importer.import_from_string = import_ours
