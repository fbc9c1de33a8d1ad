// Presence at random: three users, five connections at two instances; at every quiet moment all know who is there.
import { client, connected, equal, finish, given, record, until } from "./common.mjs";

let seed = given.seed;
// Mulberry32: the same steps each time.
const random = () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const pick = (list) => list[Math.floor(random() * list.length)];

const name = "presence-crowd";
const tabs = await Promise.all(
  ["ann", "ann", "bob", "bob", "cid"].map(async (user, number) => {
    const pusher = await connected(client(given.ports[number % 2], { user, info: { number } }));
    return { user, pusher, channel: undefined, told: undefined };
  }),
);

const truth = () => [...new Set(tabs.filter((tab) => tab.channel).map((tab) => tab.user))].sort();
const seen = (channel) => Object.keys(channel.members.members).sort();
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

for (let step = 0; step < given.steps; step += 1) {
  const tab = pick(tabs);
  if (tab.channel) {
    tab.pusher.unsubscribe(name);
    tab.channel = undefined;
  } else {
    tab.channel = tab.pusher.subscribe(name);
    const told = record(tab.channel, "pusher:member_added", "pusher:member_removed");
    // Before that, what was on its way to the subscription of before arrives yet.
    tab.channel.bind("pusher:subscription_succeeded", () => told.splice(0));
    tab.told = told;
  }
  if (step % 5 !== 4) continue;
  const expected = truth();
  for (const { channel, told } of tabs.filter((each) => each.channel)) {
    await until(`who is there after step ${step}`, () => channel.subscribed && same(seen(channel), expected));
    equal("count", channel.members.count, expected.length);
    // Each user comes and goes by turns.
    for (const user of ["ann", "bob", "cid"]) {
      const events = told.filter(([, member]) => member.id === user).map(([event]) => event);
      if (events.some((event, at) => event === events[at - 1])) throw new Error(`${user}: ${events}`);
    }
  }
}
for (const { pusher } of tabs) pusher.disconnect();
finish();
