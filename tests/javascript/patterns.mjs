// Subscriptions by a pattern, beside those to topics, also one that is called so: a line of JSON.
// Arguments: the URL, and the transport.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [url, transport] = process.argv.slice(2);
const found = {};
const make = () => connect(url, { ...options, transports: [transport] });
const hub = make();
const room = `rooms ${transport}/`;
const all = `${room}*`;
const log = (subscription) => {
  const heard = [];
  subscription.addEventListener("message", ({ topic, data }) => heard.push([topic.replace(room, ""), data]));
  return heard;
};
const arrive = async (heard, count) => {
  while (heard.length < count) await new Promise((resolve) => setTimeout(resolve, 5));
};

const matching = hub.subscribe(all, { pattern: true });
const named = hub.subscribe(all);
const begun = (await matching.ready).cursor;
await named.ready;
const logs = [log(matching), log(named)];
await hub.publish(`${room}a`, "1");
await hub.publish(`${room}b/c`, { x: 2 });
await hub.publish(all, "3");
await hub.publish(`other ${transport}`, "no");
await Promise.all([arrive(logs[0], 3), arrive(logs[1], 1)]);
found.logs = logs.map((heard) => [...heard]);
// Another one by the same pattern shares what comes, or asks for what was.
const shared = hub.subscribe(all, { pattern: true });
logs.push(log(shared));
found.ready = [(await shared.ready).recovered];
const back = hub.subscribe(all, { pattern: true, since: begun });
logs.push(log(back));
found.ready.push((await back.ready).recovered);
await hub.publish(`${room}d`, "4");
await Promise.all([arrive(logs[0], 4), arrive(logs[2], 1), arrive(logs[3], 4)]);
found.back = [logs[2], logs[3]];
// It ends for itself, and what is left goes on.
shared.close();
back.close();
named.close();
await hub.publish(`${room}e`, "5");
await arrive(logs[0], 5);
found.ended = logs.map(({ length }) => length);
// What came in the meantime comes to who comes back with its cursor, over whatever topic.
const { cursor } = matching;
matching.close();
await hub.publish(`${room}f`, "6");
await hub.publish(`${room}a`, "7");
const later = make();
const resumed = later.subscribe(all, { pattern: true, since: cursor });
const missed = [];
for await (const { topic, data } of resumed) {
  missed.push([topic.replace(room, ""), data]);
  if (missed.length === 2) break;
}
found.missed = [missed, (await resumed.ready).recovered];
later.close();
const lost = hub.subscribe(all, { pattern: true, since: "0123456789ab:1" });
found.lost = (await lost.ready).recovered;
lost.close();
const code = ({ code: said }) => said;
found.refused = [
  await hub.subscribe("secret/*", { pattern: true }).ready.catch(code),
  await hub.subscribe("a/*/b", { pattern: true }).ready.catch(code),
  await hub.subscribe("secret/*").ready.catch(code),
];
for (const more of [{ watch: true }, { join: {} }]) {
  try {
    hub.subscribe(all, { pattern: true, ...more });
  } catch (error) {
    found.refused.push(code(error));
  }
}
hub.close();
console.log(JSON.stringify(found));
