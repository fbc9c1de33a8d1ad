// Clients whose instances are restarted one after the other: each is told to come back at once (4200), and does.
import { client, finish, given, until } from "./common.mjs";

const [port] = given.ports;
const clients = Array.from({ length: given.clients }, () => {
  const pusher = client(port);
  const seen = { connected: 0, over: false, codes: new Set() };
  pusher.connection.bind("connected", () => (seen.connected += 1));
  pusher.connection.bind("error", (error) => seen.codes.add((error.error ?? error).data?.code));
  pusher.subscribe("room").bind("over", () => (seen.over = true));
  return seen;
});
await until("all hear the end", () => clients.every(({ over }) => over), 50);
for (const { connected, codes } of clients) {
  if (connected < 2) throw new Error(`a client was connected ${connected} times`);
  if (!codes.has(4200)) throw new Error(`a client was told ${[...codes]}`);
}
finish();
