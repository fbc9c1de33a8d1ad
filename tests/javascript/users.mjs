// Users of a hub: tokens that end, presence by user, and what the server ends: a line of JSON.
// Argument: the server.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [server] = process.argv.slice(2);
const found = {};
const wait = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
};
const states = (hub) => {
  const told = [];
  hub.addEventListener("state", ({ state, transport, status }) => told.push(transport ?? status ?? state));
  return told;
};
const post = async (path) => (await fetch(server + path, { method: "POST" })).text();
const make = (token, more = {}) => connect(`${server}/topics`, { ...options, retryBase: 1, token, ...more });

// A function is asked at the connection and before its token ends, over the same connection.
const LIFE = 6;
const tokens = [`ann ${LIFE}`, "ann 1000"];
let asked = 0;
const ann = make(() => tokens[asked++]);
const annStates = states(ann);
// Of a string, `ontoken` is asked.
const bob = make(`bob ${LIFE}`);
const bobStates = states(bob);
const refusals = [];
bob.ontoken = ({ status, reason }) => {
  refusals.push(`${status} ${reason}`);
  return "bob 1000";
};
// Nobody brings another one: that is said, and it ends. And one that throws is the page's own fault.
const eve = make("eve 3");
const eveStates = states(eve);
process.on("uncaughtException", (error) => (found.raised = error.message));
const joe = make("joe 3");
joe.ontoken = () => {
  throw new Error("no login");
};
for (const hub of [eve, joe]) hub.subscribe("room").onerror = () => {};

const here = ann.subscribe("room", { watch: true, join: { name: "Queen" } });
await here.ready;
const tab = make("ann 1000");
const other = tab.subscribe("room", { join: null });
await other.ready;
const his = bob.subscribe("room", { join: null });
await his.ready;
await wait(() => here.count === 3);
const begun = performance.now();
found.users = [...here.users].map(([user, { name }]) => `${user} ${name}`).sort();
found.same = here.members.size;

await wait(() => asked === 2 && refusals.length === 1 && eve.state === "refused" && found.raised);
found.eve = eveStates;
// Longer than the first tokens.
await wait(() => performance.now() > begun + LIFE * 1000 + 500);
found.states = [[...annStates], [...bobStates]];

// A tab that is lost, and back in time, keeps its id, and nobody is told; one that leaves the topic is told.
const changes = [];
here.onpresence = ({ join, leave }) => changes.push(join ? "join" : leave ? "leave" : "list");
const before = other.present;
tab.close();
const reloaded = make("ann 1000");
const again = reloaded.subscribe("room", { join: null });
await again.ready;
found.kept = again.present === before;
again.close();
await wait(() => here.count === 2);
found.changes = [...changes];
found.left = [...here.users.keys()].sort();

// The server ends a subscription, and a connection.
const errors = [];
his.onerror = ({ code, reason }) => errors.push(`${code} ${reason}`);
await post("/unsubscribe/bob");
await wait(() => errors.length);
found.errors = errors;
found.closed = await post("/disconnect/bob");
await wait(() => bobStates.length === 3);
found.back = bobStates.slice(1);
found.refusals = refusals;
for (const hub of [ann, bob, eve, joe, tab, reloaded]) hub.close();
console.log(JSON.stringify(found));
