// Clients whose instances are restarted one after the other: each is told to come back at once (4200), and does. What a
// client waits before it tries again it says itself, in whole seconds; so it is known without a clock.
import { client, finish, given, until } from "./common.mjs";

const [port] = given.ports;
const LONGEST = 3;
const clients = Array.from({ length: given.clients }, () => {
  const pusher = client(port);
  const seen = { connected: 0, over: false, codes: new Set(), waits: 0, longest: 0 };
  pusher.connection.bind("connecting_in", (seconds) => {
    seen.waits += seconds;
    seen.longest = Math.max(seen.longest, seen.waits);
  });
  pusher.connection.bind("connected", () => {
    seen.connected += 1;
    seen.waits = 0;
  });
  pusher.connection.bind("error", (error) => seen.codes.add((error.error ?? error).data?.code));
  pusher.subscribe("room").bind("over", () => (seen.over = true));
  return seen;
});
await until("all hear the end", () => clients.every(({ over }) => over), 50);
for (const { connected, codes, longest } of clients) {
  if (connected < 2) throw new Error(`a client was connected ${connected} times`);
  if (longest > LONGEST) throw new Error(`a client waited ${longest} s to try again`);
  if (!codes.has(4200)) throw new Error(`a client was told ${[...codes]}`);
}
finish();
