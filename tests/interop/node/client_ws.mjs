// The client's part of the scenario, played by `ws`.

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import WebSocket from "ws";
import { compressible, digest, messages, octets } from "./scenario.mjs";

const base = process.argv[2];
const scenario = JSON.parse(await readFile(new URL("../scenario.json", import.meta.url), "utf8"));

// Text messages come as bytes too, with a flag.
function value([data, binary]) {
  return binary ? data : data.toString();
}

async function open(path) {
  const ws = new WebSocket(base + path);
  await once(ws, "open");
  return ws;
}

async function end(ws) {
  const [code, reason] = await once(ws, "close");
  return { code, reason: reason.toString() };
}

async function closed(ws, result) {
  ws.close(1000);
  await end(ws);
  return result;
}

async function echo(ws, parts, options = {}) {
  const back = once(ws, "message");
  parts.forEach((part, index) => ws.send(part, { ...options, fin: index === parts.length - 1 }));
  return digest(value(await back));
}

async function ping(ws) {
  const back = once(ws, "pong");
  ws.ping(scenario.ping);
  return (await back)[0].toString();
}

async function playEcho() {
  const ws = await open("/echo");
  const echoed = [];
  for (const message of messages(scenario)) {
    echoed.push(await echo(ws, [message]));
  }
  const fragmented = [
    await echo(ws, scenario.textFragments, { compress: false }),
    await echo(ws, scenario.binaryFragments.map(octets)),
  ];
  const pong = await ping(ws);
  ws.close(scenario.closeByClient.code, scenario.closeByClient.reason);
  return { echoed, fragmented, pong, closed_by_client: await end(ws) };
}

async function playCompressed() {
  const ws = await open("/compressed");
  const deflate = ws.extensions.includes("permessage-deflate");
  return closed(ws, { deflate, compressed: await echo(ws, [compressible(scenario)]) });
}

async function playFragments() {
  const ws = new WebSocket(`${base}/fragments`);
  const got = [];
  ws.on("message", (...message) => got.push(value(message)));
  while (got.length < 2) {
    await once(ws, "message");
  }
  return closed(ws, { fragments: await Promise.all(got.map(digest)) });
}

async function playPing() {
  const ws = new WebSocket(`${base}/ping`);
  const pinged = value(await once(ws, "message"));
  return closed(ws, { pinged });
}

async function playClose() {
  const ws = new WebSocket(`${base}/close`);
  return { closed_by_server: await end(ws) };
}

const report = {
  ...(await playEcho()),
  ...(await playCompressed()),
  ...(await playFragments()),
  ...(await playPing()),
  ...(await playClose()),
};
console.log("report", JSON.stringify(report));
