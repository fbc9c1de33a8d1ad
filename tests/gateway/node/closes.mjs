// What pusher-js makes of each close code: it stays away, or it comes back.
import { client, connected, equal, finish, given, PusherJs, until } from "./common.mjs";

const [good, disabled, full, older, unsigned, crowded] = given.ports;

const codes_of = (pusher) => {
  const codes = [];
  pusher.connection.bind("error", (error) => codes.push((error.error ?? error).data?.code));
  return codes;
};
const codes = (found) => [...new Set(found)];

const stranger = new PusherJs("unknown", {
  cluster: "",
  wsHost: "127.0.0.1",
  wsPort: good,
  forceTLS: false,
  enabledTransports: ["ws"],
});
const refused = [
  [4001, stranger],
  [4003, client(disabled)],
  [4004, client(full)],
  [4007, client(older)],
  [4009, client(unsigned)],
].map(([code, pusher]) => [code, pusher, codes_of(pusher)]);
for (const [code, pusher, found] of refused) {
  await until(`the end by ${code}`, () => pusher.connection.state === "disconnected");
  equal("why", codes(found), [code]);
}

// Over capacity: it tries again, until there is room.
const first = await connected(client(crowded));
const second = client(crowded);
const found = codes_of(second);
await until("tried", () => found.length >= 1);
equal("why", codes(found), [4100]);
first.disconnect();
await connected(second);
second.disconnect();

// Nobody who was refused has come back meanwhile.
for (const [code, pusher, found] of refused) {
  equal(`after ${code}`, [pusher.connection.state, codes(found)], ["disconnected", [code]]);
}
finish();
