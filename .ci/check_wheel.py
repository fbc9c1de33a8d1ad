"""Check a wheel that is installed here: both twins are in it, and a client gets an echo from a server on each of them.

Run it by the Python that the wheel is installed into, outside of the clone: a folder with the sources would be imported
in its place.
"""

import os
import subprocess
import sys
import tempfile

PROGRAM = """\
import asyncio, importlib.metadata, pathlib, sys
import rawws
from rawws import _twins, _version

async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with rawws.serve(echo, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with rawws.connect(f"ws://127.0.0.1:{port}/") as ws:
            for message in ("Hello", bytes(range(256)) * 1000):
                await ws.send(message)
                assert await ws.recv() == message

twin, clone = sys.argv[1:]
assert _twins.running() == twin, _twins.running()
assert _version.__version__ == importlib.metadata.version("rawws")
folder = pathlib.Path(rawws.__file__).resolve().parent
assert not folder.is_relative_to(clone) or "site-packages" in folder.parts, folder
assert (folder / "py.typed").exists()
asyncio.run(main())
print("rawws", _version.__version__, twin, "on Python", sys.version.split()[0], "echoes")
"""

clone = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
for twin, pure in (("compiled", ""), ("interpreted", "1")):
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"RAWWS_PURE": pure}
        subprocess.run([sys.executable, "-c", PROGRAM, twin, clone], cwd=folder, env=env, check=True)
