// Laravel Echo, as an application of Laravel uses it, by both of its broadcasters that speak protocol 7.
import Echo from "laravel-echo";

import { PusherJs, equal, finish, given, server, until } from "./common.mjs";

const [here, there] = given.ports;
const api = server(there);

const echo = (broadcaster, user, bad = false) =>
  new Echo({
    broadcaster,
    key: given.key,
    cluster: "",
    wsHost: "127.0.0.1",
    wsPort: here,
    forceTLS: false,
    enabledTransports: ["ws"],
    Pusher: PusherJs,
    // In the place of /broadcasting/auth of the application.
    authorizer: (channel) => ({
      authorize: (socketId, callback) => {
        const member = channel.name.startsWith("presence-") ? { user_id: user, user_info: { id: user } } : undefined;
        const signed = server(here, bad ? { secret: "wrong" } : {}).authorizeChannel(socketId, channel.name, member);
        callback(null, signed);
      },
    }),
  });

for (const broadcaster of ["reverb", "pusher"]) {
  const [ann, bob] = [echo(broadcaster, 1), echo(broadcaster, 2)];
  await until("connected", () => ann.socketId() && bob.socketId());

  const got = [];
  let ready = 0;
  const subscribed = () => (ready += 1);
  ann.channel("orders").subscribed(subscribed).listen("OrderShipped", (data) => got.push(["shipped", data]));
  ann.channel("orders").listen(".plain", (data) => got.push(["plain", data]));
  ann.private("user.1").subscribed(subscribed).listen("Told", (data) => got.push(["told", data]));
  await until("subscribed", () => ready === 2);
  await api.trigger("orders", "App\\Events\\OrderShipped", { id: 5 }, { socket_id: bob.socketId() });
  await api.trigger("orders", "App\\Events\\OrderShipped", { id: 6 }, { socket_id: ann.socketId() });
  await api.trigger("orders", "plain", "text");
  await api.trigger("private-user.1", "App\\Events\\Told", {});
  await until("events", () => got.length === 3);
  equal("events", got, [["shipped", { id: 5 }], ["plain", "text"], ["told", {}]]);

  const seen = [];
  const room = ann.join("room").here((users) => seen.push(["here", users]));
  room.joining((user) => seen.push(["joining", user])).leaving((user) => seen.push(["leaving", user]));
  await until("here", () => seen.length === 1);
  let inside;
  bob.join("room").here((users) => (inside = users));
  await until("joining", () => seen.length === 2 && inside);
  equal("both", inside.map((user) => user.id).sort(), [1, 2]);
  const whispers = [];
  room.listenForWhisper("typing", (data) => whispers.push(data));
  bob.join("room").whisper("typing", { name: "Bob" });
  await until("whisper", () => whispers.length === 1);
  equal("whisper", whispers, [{ name: "Bob" }]);
  bob.leave("room");
  await until("leaving", () => seen.length === 3);
  equal("who was there", seen, [["here", [{ id: 1 }]], ["joining", { id: 2 }], ["leaving", { id: 2 }]]);

  const stranger = echo(broadcaster, 3, true);
  let refused;
  stranger.private("user.1").error((error) => (refused = error));
  await until("refused", () => refused);
  equal("refused", [refused.type, refused.status], ["AuthError", 401]);
  for (const each of [ann, bob, stranger]) each.disconnect();
}
finish();
