// What happens where nobody answers: what waits, what breaks, what a reader gets that takes nothing; one line of JSON.
// Arguments: a URL where a server is, and one where none is.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [url, nowhere] = process.argv.slice(2);
const code = (promise) => promise.then(() => "done", (error) => error.code);
const found = {};

// No server: so much may wait, and close() settles it.
const offline = connect(nowhere, { ...options, queue: 3, queueSize: 1000, transports: ["poll"] });
const waiting = [1, 2, 3].map((number) => code(offline.publish("told", String(number))));
found.fourth = await code(offline.publish("told", "4"));
const silent = offline.subscribe("told");
const ended = code(silent.ready);
offline.close();
found.waiting = await Promise.all(waiting);
found.ended = await ended;
const large = connect(nowhere, { ...options, queueSize: 1000, transports: ["poll"] });
found.large = await code(large.publish("told", "x".repeat(1000)));
large.close();

// What was published while there was no connection goes out when there is one.
found.late = [];
for (const transport of ["websocket", "stream", "poll"]) {
  const hub = connect(url, { ...options, transports: [transport] });
  found.late.push(/^[0-9a-f]+:\d+$/.test(await hub.publish("late", "first")));
  hub.close();
}

// Whoever takes nothing is told so, and holds no more than the buffer.
const slow = connect(url, { ...options, buffer: 10 });
const many = slow.subscribe("numbers");
const counted = slow.subscribe("numbers");
let came = 0;
await new Promise((resolve) => {
  counted.onmessage = () => {
    if ((came += 1) === 20) resolve();
  };
});
counted.close();
try {
  for await (const _ of many);
} catch (error) {
  found.slow = error.code;
}

// A callback that raises disturbs nobody else.
process.once("uncaughtException", (error) => (found.raised = error.message));
const both = slow.subscribe("numbers");
let count = 0;
found.count = await new Promise((resolve) => {
  both.onmessage = () => {
    count += 1;
    if (count === 1) throw new Error("of the user");
    if (count === 3) resolve(count);
  };
});
slow.close();

// What still comes for a subscription that was closed is not taken for that of the next one.
const again = connect(url, options);
const say = (count, from) => Array.from({ length: count }, (_, number) => again.publish("again", String(from + number)));
await Promise.all(say(10, 0));
const first = again.subscribe("again");
await first.ready;
const published = say(90, 10);
first.close();
const second = again.subscribe("again", { since: "earliest" });
const log = [];
second.onmessage = ({ data }) => log.push(Number(data));
await Promise.all(published);
await second.ready;
await again.publish("again", "100");
found.again = log.length === 101 && log.every((number, index) => number === index);
again.close();

// Who hears of no error is told in the console; who handles it, or reads it in a loop, is told there alone.
const warnings = [];
console.warn = (text) => warnings.push(text);
const guarded = connect(url, options);
const unheard = guarded.subscribe("secret/a");
unheard.onmessage = () => {};
guarded.subscribe("secret/b").onerror = () => {};
const loop = (async () => {
  for await (const _ of guarded.subscribe("secret/c"));
})();
await loop.catch((error) => (found.looped = error.message));
await code(guarded.subscribe("secret/d").ready);
guarded.close();
found.warnings = warnings;

const node = globalThis.WebSocket;
delete globalThis.WebSocket;
const wrong = [
  [url, { retry: 1 }],
  [url, { transports: ["carrier pigeon"] }],
  [url, { transports: ["websocket"] }],
  ["/topics", {}],
];
found.wrong = wrong.map(([url, wrong]) => {
  try {
    connect(url, wrong);
  } catch (error) {
    return error.message;
  }
});
globalThis.WebSocket = node;
console.log(JSON.stringify(found));
