// All kinds of channels: clients at one instance, the server's library at another one.
import { client, connected, equal, finish, given, record, server, subscribed, until } from "./common.mjs";

const [here, there] = given.ports;
const api = server(there);
const ann = await connected(client(here, { user: "ann", info: { name: "Ann" } }));
const bob = await connected(client(there, { user: "bob" }));
if (!/^\d+\.\d+$/.test(ann.connection.socket_id)) throw new Error(ann.connection.socket_id);

// -- public
const [first, second] = [await subscribed(ann, "room"), await subscribed(bob, "room")];
const [annGot, bobGot] = [record(first, "new", "end"), record(second, "new", "end")];
await api.trigger("room", "new", { text: "é" });
await api.trigger("room", "new", "not to ann", { socket_id: ann.connection.socket_id });
await api.triggerBatch([
  { channel: "room", name: "end", data: "1" },
  { channel: "room", name: "end", data: { two: 2 } },
]);
await until("events", () => annGot.length === 3 && bobGot.length === 4);
equal("ann", annGot.map((each) => each.slice(0, 2)), [["new", { text: "é" }], ["end", 1], ["end", { two: 2 }]]);
equal("bob", bobGot[1].slice(0, 2), ["new", "not to ann"]);

// -- private, and events of clients
const [annPrivate, bobPrivate] = [await subscribed(ann, "private-x"), await subscribed(bob, "private-x")];
const [annHeard, bobHeard] = [record(annPrivate, "client-move", "ping"), record(bobPrivate, "client-move", "ping")];
annPrivate.trigger("client-move", { x: 1.5 });
await until("client event", () => bobHeard.length === 1);
await api.trigger("private-x", "ping", {});
await until("ping", () => bobHeard.length === 2 && annHeard.length === 1);
equal("client event", bobHeard[0].slice(0, 2), ["client-move", { x: 1.5 }]);
equal("not to the sender", annHeard.map((each) => each[0]), ["ping"]);

// -- presence
const annIn = await subscribed(ann, "presence-p");
equal("alone", annIn.members.members, { ann: { name: "Ann" } });
equal("me", annIn.members.me, { id: "ann", info: { name: "Ann" } });
const seen = record(annIn, "pusher:member_added", "pusher:member_removed");
const bobIn = await subscribed(bob, "presence-p");
await until("bob", () => seen.length === 1 && annIn.members.count === 2);
equal("both", [bobIn.members.count, Object.keys(bobIn.members.members).sort()], [2, ["ann", "bob"]]);
const tab = await connected(client(here, { user: "bob" }));
await subscribed(tab, "presence-p");
const heard = record(annIn, "client-hello");
bobIn.trigger("client-hello", "hi");
await until("hello", () => heard.length === 1);
equal("who", heard[0][2], { user_id: "bob" });
tab.disconnect();
bob.unsubscribe("presence-p");
await until("bob left", () => annIn.members.count === 1);
equal("told once", seen.map(([name, { id }]) => [name, id]), [
  ["pusher:member_added", "bob"],
  ["pusher:member_removed", "bob"],
]);

// -- encrypted
const secret = await subscribed(ann, "private-encrypted-s");
const decrypted = record(secret, "told");
await api.trigger("private-encrypted-s", "told", { secret: 1 });
await until("decrypted", () => decrypted.length === 1);
equal("decrypted", decrypted[0][1], { secret: 1 });

// -- cache
for (const name of ["cache-c", "private-cache-c"]) {
  const missed = ann.subscribe(name);
  const misses = record(missed, "pusher:cache_miss", "price");
  await until("miss", () => misses.length === 1);
  await api.trigger(name, "price", 1);
  await api.trigger(name, "price", 2);
  await until("prices", () => misses.length === 3);
  const late = bob.subscribe(name);
  const prices = record(late, "price", "pusher:cache_miss");
  await until("cached", () => prices.length === 1);
  equal("cached", prices[0].slice(0, 2), ["price", 2]);
  const response = await api.get({ path: `/channels/${name}`, params: { info: "cache,subscription_count" } });
  const told = await response.json();
  equal("what is held", [told.cache.data, told.cache.ttl > 1700, told.subscription_count], ["2", true, 2]);
}

// -- users
const fan = await connected(client(there, { user: "fan", watchlist: ["bob", "zoe"] }));
const online = record(fan.user.watchlist, "online", "offline");
bob.signin();
await until("signed in", () => bob.user.user_data);
fan.signin();
await until("online", () => online.length === 1);
equal("online", online[0].slice(0, 2), ["online", { name: "online", user_ids: ["bob"] }]);
await until("its channel", () => bob.user.serverToUserChannel?.subscribed);
const mine = record(bob.user, "for-you");
await api.sendToUser("bob", "for-you", { yes: true });
await until("to the user", () => mine.length === 1);
equal("to the user", mine[0][1], { yes: true });
await api.terminateUserConnections("bob");
await until("terminated", () => bob.connection.state === "disconnected");
await until("offline", () => online.length === 2);
equal("offline", online[1][0], "offline");

// -- a signature that is wrong
const stranger = await connected(client(here, { user: "eve", auth: { auth: `${given.key}:${"0".repeat(64)}` } }));
const refused = stranger.subscribe("private-x");
const errors = record(refused, "pusher:subscription_error");
await until("refused", () => errors.length === 1);
equal("refused", [errors[0][1].type, errors[0][1].status], ["AuthError", 401]);

for (const each of [ann, bob, fan, stranger]) each.disconnect();
finish();
