// Clients in a channel, each with its times there and what it heard in each: numbers that a server publishes, one more
// than the last.
import { client, until } from "./common.mjs";

export const stayers = (port, count) =>
  Array.from({ length: count }, () => {
    // The numbers of each time in the channel, and the milliseconds between two of them, in the order of both.
    const seen = { stays: [], away: [], left: undefined, over: undefined, codes: [], waits: 0, longest: 0 };
    const pusher = client(port);
    const leave = () => (seen.left ??= performance.now());
    // What a client waits before it tries again it says itself, in whole seconds.
    pusher.connection.bind("connecting_in", (seconds) => {
      seen.waits += seconds;
      seen.longest = Math.max(seen.longest, seen.waits);
    });
    pusher.connection.bind("error", (error) => {
      seen.codes.push((error.error ?? error).data?.code);
      leave();
    });
    pusher.connection.bind("state_change", ({ previous, current }) => {
      if (previous === "connected") leave();
      if (current === "connected") seen.waits = 0;
    });
    const channel = pusher.subscribe("room");
    channel.bind("pusher:subscription_succeeded", () => {
      if (seen.left !== undefined) seen.away.push(performance.now() - seen.left);
      seen.left = undefined;
      seen.stays.push([]);
    });
    channel.bind("tick", (number) => seen.stays.at(-1).push(number));
    channel.bind("over", (data) => (seen.over = data));
    return seen;
  });

export const all_are_over = (clients, seconds) =>
  until("all hear the end", () => clients.every(({ over }) => over !== undefined), seconds);
