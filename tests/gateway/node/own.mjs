// One channel heard by two protocols: rawws.js at one instance, whose connection is cut for a while, Echo at another.
import { createConnection, createServer } from "node:net";

import Echo from "laravel-echo";

import { connect } from "../../../rawws/topics/js/rawws.js";
import { PusherJs, equal, finish, given, server, until } from "./common.mjs";

const [here, there] = given.ports;
const apis = [server(here), server(there)];

// What stands between rawws.js and its instance: it can be cut.
const links = new Set();
let open = true;
const proxy = createServer((near) => {
  if (!open) return near.destroy();
  const far = createConnection(here, "127.0.0.1");
  links.add(near).add(far);
  for (const [one, other] of [[near, far], [far, near]]) {
    one.pipe(other);
    one.on("error", () => {}).on("close", () => links.delete(one) && other.destroy());
  }
});
await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
const cut = () => {
  open = false;
  for (const link of links) link.destroy();
};

const hubs = ["websocket", "stream", "poll"].map((transport) =>
  connect(`http://127.0.0.1:${proxy.address().port}/connect/${given.app}`, {
    transports: [transport],
    token: given.token,
  }),
);
const heard = hubs.map((hub) => {
  const got = [];
  const subscription = hub.subscribe("orders");
  subscription.onmessage = ({ data, event }) => got.push([event, JSON.parse(data).n]);
  subscription.ongap = () => got.push("gap");
  return { got, ready: subscription.ready };
});
await Promise.all(heard.map(({ ready }) => ready));

const echo = new Echo({
  broadcaster: "pusher",
  key: given.key,
  cluster: "",
  wsHost: "127.0.0.1",
  wsPort: there,
  forceTLS: false,
  enabledTransports: ["ws"],
  Pusher: PusherJs,
});
const told = [];
let ready = false;
echo.channel("orders").subscribed(() => (ready = true)).listen(".shipped", ({ n }) => told.push(["shipped", n]));
await until("subscribed", () => ready);

const publish = async (from, to) => {
  for (let n = from; n < to; n += 1) await apis[n % 2].trigger("orders", "shipped", { n });
};
// Without waiting for each: two servers at once, whose events have one order for all.
await Promise.all([publish(0, 20), publish(100, 120)]);
cut();
await Promise.all([publish(20, 40), publish(120, 140)]);
open = true;
await publish(200, 210);
await until("Echo has all", () => told.length === 90);
for (const { got } of heard) {
  await until("rawws.js has all", () => got.length >= 90);
  equal("one order", got, told);
}
// What one who speaks rawws.v1 says, Echo hears.
const said = [];
echo.channel("orders").listen(".client-hello", (data) => said.push(data));
await hubs[0].publish("orders", JSON.stringify({ n: 1 }), { event: "client-hello" });
await until("Echo hears a client", () => said.length === 1);
hubs.forEach((hub) => hub.close());
echo.disconnect();
proxy.close();
cut();
finish();
