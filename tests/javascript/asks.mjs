// Publishes and asks over one transport, and prints what came of it as one line of JSON.
// Arguments: the URL, and the transport.

import { options } from "./options.mjs";

// A test may name the module of an earlier version.
const { connect } = await import(process.env.RAWWS_JS ?? "../../rawws/topics/js/rawws.js");
const [url, transport] = process.argv.slice(2);
const hub = connect(url, { ...options, transports: [transport], token: async () => "open" });
const codes = (promises) => Promise.all(promises.map((promise) => promise.then(String, ({ code, name }) => code ?? name)));
const found = {};

const told = hub.subscribe("told");
const opaque = hub.subscribe("token/open");
found.refused = await codes([hub.subscribe("secret").ready, hub.subscribe("token/shut").ready]);
await Promise.all([told.ready, opaque.ready]);

const octets = Uint8Array.from({ length: 20_000 }, (_, number) => number % 256);
const said = ["", "Grüße ✓", octets, ...Array.from({ length: 50 }, (_, number) => String(number))];
const published = said.map((data) => hub.publish("told", data));
const heard = [];
for await (const { data, cursor } of told) {
  heard.push({ data, cursor });
  if (heard.length === said.length) break;
}
found.cursors = JSON.stringify(await Promise.all(published)) === JSON.stringify(heard.map(({ cursor }) => cursor));
found.same = heard.every(({ data }, number) =>
  typeof data === "string" ? data === said[number] : Buffer.compare(data, said[number]) === 0,
);
found.errors = await codes([
  hub.publish("secret", "x"),
  hub.publish("a\nb", "x"),
  hub.publish("told", new Uint8Array(700_000)).then(() => "taken"),
  hub.publish("told", undefined),
  hub.publish("told", "x".repeat(5 << 20)),
]);

// Each is decided on more quickly than the one before, and goes out behind it all the same.
const slower = await Promise.all(["a", "b", "c", "d"].map((data) => hub.publish("slower", data)));
found.slower = slower.map((cursor) => cursor.split(":")[1] - slower[0].split(":")[1]);

const back = hub.subscribe("told", { since: heard[50].cursor });
found.back = [];
for await (const { data } of back) {
  found.back.push(data.length);
  if (found.back.length === 3) break;
}
found.unknown = await codes([hub.subscribe("told", { since: `${heard[0].cursor}999` }).ready]);
const lost = hub.subscribe("told", { since: "0123456789ab:1" });
found.ready = (await lost.ready).recovered;
for await (const { recovered } of lost) {
  found.recovered = recovered;
  break;
}
found.transport = hub.transport;
found.presence = await hub.presence("told");
hub.close();
found.closed = await codes([hub.publish("told", "x"), hub.presence("told")]);
// No timer of the hub's keeps the process; a connection may take a moment to end.
found.timers = process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
console.log(JSON.stringify(found));
