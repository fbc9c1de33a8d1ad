// The shape of React Native: no page, a URL that can only be read, no streams, a Close without `wasClean`; a line of JSON.
// Arguments: the URL, one where none is, and one where nobody is let in.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [url, nowhere, locked] = process.argv.slice(2);
const found = {};
const BaseSocket = options.WebSocket ?? globalThis.WebSocket;
const base = globalThis.fetch;

// Node itself needs a whole one.
globalThis.URL = class extends URL {
  constructor(...given) {
    super(...given);
    if (new Error().stack.split("\n")[2].includes("rawws.js")) throw new Error("URL is not implemented");
  }
};
globalThis.TextDecoderStream = undefined;
globalThis.addEventListener = globalThis.removeEventListener = undefined;
globalThis.fetch = async (...given) => {
  if (given.some((each) => typeof each !== "string" && typeof each?.signal !== "object")) throw new TypeError("no string");
  const answer = await base(...given);
  return { ok: answer.ok, status: answer.status, json: () => answer.json(), text: () => answer.text() };
};
globalThis.WebSocket = class {
  constructor(...given) {
    this.socket = new BaseSocket(...given);
    this.socket.onopen = () => this.onopen?.({});
    this.socket.onmessage = ({ data }) => this.onmessage?.({ data });
    this.socket.onerror = () => this.onerror?.({ message: "it failed" });
    this.socket.onclose = ({ code, reason }) => this.onclose?.({ code, reason });
  }

  send(text) {
    this.socket.send(text);
  }

  close() {
    this.socket.close();
  }
};

for (const transports of [["websocket", "stream", "poll"], ["stream", "poll"]]) {
  const hub = connect(url, { transports });
  const told = hub.subscribe("native");
  await told.ready;
  await hub.publish("native", Uint8Array.from([1, 2, 255]));
  for await (const { data } of told) {
    found[hub.transport] = [...data];
    break;
  }
  hub.close();
}
const state = (hub, wanted) => new Promise((resolve) => (hub.onstate = (event) => wanted(event) && resolve(event)));
found.refused = (await state(connect(locked), ({ state }) => state === "refused")).status;
// One that says `error` and nothing else, as that of some Node 22 does, is tried again.
let tries = 0;
class Mute {
  constructor() {
    tries += 1;
    setTimeout(() => this.onerror({}));
  }

  close() {}
}
const mute = connect(nowhere, { WebSocket: Mute, retryBase: 1, retryCap: 1 });
await state(mute, () => tries === 5);
mute.close();
found.mute = tries;
console.log(JSON.stringify(found));
