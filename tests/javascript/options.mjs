// The options of `connect` for a program of the tests: Node 20 has no WebSocket, and gets that of the package ws.

import { createRequire } from "node:module";

export const options = globalThis.WebSocket ? {} : { WebSocket: createRequire(import.meta.url)("../interop/node/node_modules/ws") };
