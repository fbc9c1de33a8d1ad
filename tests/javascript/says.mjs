// Publishes JSON and events, looks back, calls and is called over one transport, and prints what came of it.
// Arguments: the URL, and the transport.

import { connect, HubError } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [url, transport] = process.argv.slice(2);
const hub = connect(url, { ...options, transports: [transport] });
const topic = `said over ${transport} ${process.pid}`;
const plain = ({ data, event }) => [data, event];
const code = (promise) => promise.then(String, ({ code, name }) => code ?? name);
const found = {};

const heard = [];
const topics = hub.subscribe(topic);
await topics.ready;
await hub.publish(topic, { x: [1, null, "ü"] }, { event: "move" });
for (const data of [7, false, null, "text", Uint8Array.from([1, 2])]) await hub.publish(topic, data);
await hub.publish(topic, "named", { event: "e", key: "k" });
for await (const publication of topics) {
  heard.push(plain(publication));
  if (heard.length === 7) break;
}
found.heard = heard.map(([data, event]) => [data instanceof Uint8Array ? [...data] : data, event ?? null]);

const page = await hub.history(topic, { limit: 2 });
found.last = page.publications.map(plain);
const before = await hub.history(topic, { limit: 2, before: page.publications[0].cursor });
found.before = [before.publications.map(plain), before.recovered, before.cursor === before.publications[0].cursor];
found.first = (await hub.history(topic, { limit: 1, since: "earliest" })).publications.map(plain);

found.wrong = await Promise.all([
  code(hub.publish(topic, undefined)),
  code(hub.publish(topic, () => 1)),
  code(hub.publish(topic, new Blob(["x"]))),
  code(hub.publish(topic, "x", { event: "" })),
  code(hub.history(topic, { limit: 1001 })),
  code(hub.history(topic, { sinse: "" })),
]);

// What the page itself is not to get comes to others alone, and a reconnect does not bring it.
const [mine, others] = [[], []];
const own = hub.subscribe(topic);
await own.ready;
own.onmessage = ({ data }) => mine.push(data);
const other = connect(url, { ...options, transports: [transport] });
const theirs = other.subscribe(topic);
theirs.onmessage = ({ data }) => others.push(data);
await theirs.ready;
found.excluded = [await code(hub.publish(topic, "to others", { exclude: true }).then(() => own.cursor.endsWith(":8")))];
await hub.publish(topic, "to all");
const until = performance.now() + 10_000;
while (!(mine.includes("to all") && others.includes("to all")) && performance.now() < until) {
  await new Promise((resolve) => setTimeout(resolve, 5));
}
found.excluded.push(mine, others);

found.sum = await hub.call("add", [1, 2]);
found.unknown = await code(hub.call("fly"));
found.uncalled = await hub.call("ask me", "name").catch(({ code }) => code);
hub.oncall = async ({ name, data }) => {
  if (name === "busy") throw new HubError("busy", "later");
  return [name, data];
};
found.called = await hub.call("ask me", "name").catch(({ code }) => code);
found.busy = await hub.call("ask me", "busy").catch(({ code }) => code);
const thrown = new Promise((resolve) => process.once("uncaughtException", (error) => resolve(error.message)));
hub.oncall = () => {
  throw new Error("oh");
};
found.failed = await hub.call("ask me", "x").catch(({ code }) => code);
if (transport === "websocket") found.thrown = await thrown;
hub.close();
other.close();
console.log(JSON.stringify(found));
