// Several subscriptions to one topic, listeners, and options that there are not: a line of JSON.
// Arguments: the URL, and the transport.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [url, transport] = process.argv.slice(2);
const found = {};
const sent = [];
const BaseSocket = options.WebSocket ?? globalThis.WebSocket;
class Heard extends BaseSocket {
  send(text) {
    if (!text.includes("ping")) sent.push(JSON.parse(text));
    super.send(text);
  }
}
const make = () => connect(url, { transports: [transport], WebSocket: Heard });
const hub = make();
const say = async (...texts) => {
  for (const text of texts) await hub.publish(topic, text);
};
const topic = `shared ${transport}`;
const log = (subscription) => {
  const texts = [];
  subscription.addEventListener("message", ({ data }) => texts.push(data));
  return texts;
};
const arrive = async (texts, count) => {
  while (texts.length < count) await new Promise((resolve) => setTimeout(resolve, 5));
};

await say("1", "2");
const all = hub.subscribe(topic, { since: "earliest" });
const first = log(all);
await all.ready;
await say("3");
await arrive(first, 3);
// One that wants no more than what comes has it at once, one that wants what was gets that alone.
const now = hub.subscribe(topic);
const second = log(now);
found.now = (await now.ready).recovered;
const again = hub.subscribe(topic, { since: "earliest" });
const third = log(again);
await again.ready;
const middle = hub.subscribe(topic, { since: all.cursor.replace(/.$/, (digit) => digit - 1) });
const fourth = log(middle);
found.middle = (await middle.ready).recovered;
await say("4");
await Promise.all([arrive(first, 4), arrive(second, 1), arrive(third, 4), arrive(fourth, 2)]);
found.logs = [first, second, third, fourth].map((texts) => texts.join(""));
// An old cursor is a gap for the one that had it, and for nobody else.
const lost = hub.subscribe(topic, { since: "0123456789ab:1" });
const gaps = [0, 0];
all.ongap = () => (gaps[0] += 1);
lost.addEventListener("gap", () => (gaps[1] += 1));
found.lost = (await lost.ready).recovered;
await say("5");
await arrive(first, 5);
found.gaps = gaps;
// Leaving the loop of one ends that one.
for await (const { recovered } of lost) {
  found.told = recovered;
  break;
}
again.close();
const ended = third.length;
now.close();
middle.close();
await say("6");
await arrive(first, 6);
found.ended = third.length === ended && second.join("") === "45";
all.close();
found.same = first.join("");
if (transport === "websocket") {
  // One topic is subscribed to once at a time, and left with the last subscription.
  let depth = 0;
  found.once = sent.every(({ subscribe, unsubscribe }) => {
    depth += subscribe ? 1 : unsubscribe ? -1 : 0;
    return depth === 0 || depth === 1;
  });
  found.left = depth;
  // Who joins is present once, as long as one of those that joined is there.
  const plain = hub.subscribe("room");
  const here = hub.subscribe("room", { join: { name: "Ann" }, watch: true });
  await here.ready;
  const there = hub.subscribe("room", { join: { name: "Ann" }, watch: true });
  const told = [];
  there.onpresence = ({ count }) => told.push(count);
  await there.ready;
  found.room = [plain.count, here.count, there.count, there.present === here.present, told.length > 0];
  try {
    hub.subscribe("room", { join: { name: "Bob" } });
  } catch ({ code, reason }) {
    found.other = [code, reason];
  }
  here.close();
  found.stays = (await hub.presence("room")).count;
  there.close();
  found.gone = (await hub.presence("room")).count;
  plain.close();
}

const wrong = (act) => {
  try {
    act();
  } catch ({ name, message }) {
    return `${name}: ${message}`;
  }
};
found.wrong = [
  wrong(() => connect(url, { reconnect: true })),
  wrong(() => connect("localhost:8000/topics")),
  wrong(() => hub.subscribe("x", { sinse: "earliest" })),
  wrong(() => hub.subscribe("x", { join: () => 1 })),
  wrong(() => hub.addEventListener("mesage", () => 1)),
  wrong(() => all.addEventListener("message", () => 1, { once: true })),
  await hub.publish("x", "y", { kye: "a" }).catch(({ name, message }) => `${name}: ${message}`),
];
// A listener that was taken off hears nothing.
let heard = 0;
const listener = () => (heard += 1);
hub.addEventListener("state", listener);
hub.removeEventListener("state", listener);
hub.close();
found.heard = heard;
console.log(JSON.stringify(found));
