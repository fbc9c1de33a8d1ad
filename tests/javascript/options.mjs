// The options of `connect` for a program of the tests: Node 20 has no WebSocket, and gets that of the package ws.

import { createRequire } from "node:module";

const load = createRequire(import.meta.url);
export const options = globalThis.WebSocket ? {} : { WebSocket: load("../interop/node/node_modules/ws") };
