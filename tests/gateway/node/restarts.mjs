// Clients whose instances are restarted one after the other: each is told to come back at once (4200), and does. From
// then on it hears all that is published.
import { equal, finish, given } from "./common.mjs";
import { all_are_over, stayers } from "./stays.mjs";

const LONGEST = 3;
const clients = stayers(given.ports[0], given.clients);
await all_are_over(clients, 50);
for (const { stays, codes, longest, over } of clients) {
  if (stays.length < 2) throw new Error(`a client was in the channel ${stays.length} times`);
  if (longest > LONGEST) throw new Error(`a client waited ${longest} s to try again`);
  if (!codes.includes(4200)) throw new Error(`a client was told ${codes}`);
  for (const heard of stays) equal("heard without a gap", heard, Array.from(heard, (_, at) => heard[0] + at));
  equal("the last that was heard", stays.at(-1).at(-1), over.last);
  const heard = new Set(stays.flat());
  equal("missed while all were there", over.for_all.filter((number) => !heard.has(number)), []);
}
finish();
