// Where nobody is let in, and where nobody is: what a page is told, and how often the server is asked; a line of JSON.
// Arguments: the server, and a URL where none is.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [server, nowhere] = process.argv.slice(2);
const HASTY = { retryBase: 1, retryCap: 1 };
const found = {};
const code = (promise) => promise.then(() => "done", (error) => error.code);

/** Connect, and return what is told until the state is one of these. */
async function follow(path, more, prepare = () => {}, last = ["refused", "open"]) {
  const hub = connect(server + path, { ...options, ...HASTY, ...more });
  const told = [];
  const over = new Promise((resolve) => {
    hub.addEventListener("state", ({ state, transport, status }) => {
      told.push(transport ?? (status ? `${state} ${status}` : state));
      if (last.includes(state)) resolve();
    });
  });
  prepare(hub);
  const topic = hub.subscribe("told");
  const ready = code(topic.ready);
  const loop = code((async () => { for await (const _ of topic); })());
  const late = code(hub.publish("told", "x"));
  await over;
  const after = [];
  if (hub.state === "refused") after.push(await ready, await loop, await late, await code(hub.publish("told", "y")));
  hub.close();
  return [...told, ...after];
}

for (const transport of ["websocket", "stream", "poll"]) {
  const only = { transports: [transport] };
  found[transport] = {
    401: await follow("/guarded", only),
    403: await follow("/forbidden", only),
    404: await follow("/nothing", only),
    renewed: await follow("/guarded", only, (hub) => (hub.ontoken = async ({ status }) => status === 401 && "good")),
    wrong: await follow("/guarded", only, (hub) => (hub.ontoken = () => "bad")),
    none: await follow("/guarded", only, (hub) => (hub.ontoken = async () => {})),
    asked: await (await fetch(`${server}/asked/guarded`)).json(),
  };
}
process.once("uncaughtException", (error) => (found.raised = error.message));
found.raises = await follow("/guarded", {}, (hub) => {
  hub.ontoken = async () => {
    throw new Error("no login");
  };
});
found.closing = await follow("/closing", { transports: ["websocket"] });
found.first = await follow("/guarded", { token: "good" });

// Nobody is there: WebSocket is tried again and again, and nothing is said to be its fault.
const away = connect(nowhere, { ...options, ...HASTY });
const reasons = [];
await new Promise((resolve) => {
  away.onstate = ({ state, reason }) => {
    reasons.push([state, typeof reason]);
    if (reasons.length === 12) resolve();
  };
});
found.away = [...new Set(reasons.map(String))];
const kinds = new Set();
const BaseSocket = options.WebSocket ?? globalThis.WebSocket;
class Seen extends BaseSocket {
  constructor(...given) {
    super(...given);
    kinds.add("websocket");
    if ((seen += 1) === 6) enough();
  }
}
away.close();
let seen = 0;
let enough;
const six = new Promise((resolve) => (enough = resolve));
const counted = connect(nowhere, { ...HASTY, WebSocket: Seen });
await six;
counted.close();
found.sockets = seen;
console.log(JSON.stringify(found));
