// Rooms and acknowledgements of Socket.IO over two servers: the first two arguments are their addresses.

import { once } from "node:events";
import { io } from "socket.io-client";

const [first, second, transports] = process.argv.slice(2);
const options = { transports: transports.split(","), forceNew: true, reconnection: false };
const report = {};

async function open(address) {
  const socket = io(`http://${address}`, options);
  socket.on("connect_error", (error) => {
    console.error(error);
    process.exit(1);
  });
  await once(socket, "connect");
  socket.heard = [];
  socket.on("said", (message) => socket.heard.push(message));
  return socket;
}

async function until(condition) {
  while (!condition()) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const [ada, grace, alan] = [await open(first), await open(second), await open(second)];
if (transports.startsWith("polling")) {
  await until(() => [ada, grace, alan].every((socket) => socket.io.engine.transport.name === "websocket"));
}
report.transports = [ada, grace, alan].map((socket) => socket.io.engine.transport.name);
report.joined = [await ada.emitWithAck("join", "den"), await grace.emitWithAck("join", "den")];

// The second server hears of the first when it has subscribed at Redis, which no event tells.
while (!grace.heard.length) {
  await ada.emitWithAck("say", "den", "ready?");
  await new Promise((resolve) => setTimeout(resolve, 50));
}
report.lengths = [];
for (const message of ["one", "Grüße", "x".repeat(100000), Buffer.from([0, 1, 254, 255])]) {
  report.lengths.push(await ada.emitWithAck("say", "den", message));
}
await until(() => grace.heard.filter((message) => message !== "ready?").length === 4);
report.heard = grace.heard.filter((message) => message !== "ready?").map((message) => message.length);
report.last = [...grace.heard.at(-1)];

ada.on("question", (question, answer) => answer(`${question} Yes.`));
report.asked = await ada.emitWithAck("ask", "Do you hear me?");

report.left = await grace.emitWithAck("leave", "den");
await grace.emitWithAck("say", "den", "to those who stay");
await until(() => ada.heard.length === 1);
report.stranger = alan.heard;

for (const socket of [ada, grace, alan]) {
  socket.disconnect();
}
console.log("report", JSON.stringify(report));
