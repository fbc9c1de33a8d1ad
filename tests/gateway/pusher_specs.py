"""The integration specs of pusher-js, as its package has them, against a gateway: `make specs`. They take minutes."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import pytest

import rawws
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from tests.backplanes.certificates import Certificates
from tests.client.peers import port
from tests.gateway.running import KEY, app_file, node

# What they have as the key of their app, how many there are at least, and after how many seconds they are given up.
SPECS_KEY: Final = "c49a449b916bb4246729"
SPECS: Final = 60
LONGEST: Final = 1200


def test_p8_the_integration_specs_of_pusher_js_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(files.ca))

    async def main() -> None:
        made = new_gateway(read_config(app_file().replace(KEY, SPECS_KEY)))
        routes, options = face_routes(made), gateway_options(made)
        async with (
            made,
            rawws.serve(routes, "127.0.0.1", 0, **options) as plain,
            rawws.serve(routes, "127.0.0.1", 0, ssl=context, **options) as tls,
        ):
            await node("specs.mjs", port(plain), port(tls), patience=LONGEST, key=SPECS_KEY, least=SPECS)

    asyncio.run(main())
