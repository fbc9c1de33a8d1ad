// The server's part of the scenario, played by `ws`.

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { WebSocketServer } from "ws";
import { digest, octets } from "./scenario.mjs";

const scenario = JSON.parse(await readFile(new URL("../scenario.json", import.meta.url), "utf8"));

function send(ws, parts) {
  parts.forEach((part, index) => ws.send(part, { fin: index === parts.length - 1 }));
}

async function begin(ws, path) {
  if (path === "/fragments") {
    send(ws, scenario.textFragments);
    send(ws, scenario.binaryFragments.map(octets));
  } else if (path === "/ping") {
    ws.ping(scenario.ping);
    const [payload] = await once(ws, "pong");
    if (payload.toString() === scenario.ping) {
      ws.send("pong");
    }
  } else if (path === "/close") {
    ws.close(scenario.closeByServer.code, scenario.closeByServer.reason);
  }
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
await once(server, "listening");
server.on("connection", (ws, { url: path }) => {
  const received = [];
  ws.on("message", (data, binary) => {
    const message = binary ? data : data.toString();
    received.push(digest(message));
    if (path === "/echo" || path === "/compressed") {
      ws.send(message);
    }
  });
  ws.on("close", async (code, reason) => {
    const close = { code, reason: reason.toString() };
    console.log("connection", JSON.stringify({ path, received: await Promise.all(received), close }));
  });
  begin(ws, path);
});
console.log(`listening on 127.0.0.1:${server.address().port}`);
