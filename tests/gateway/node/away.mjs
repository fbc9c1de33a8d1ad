// How long clients are away from a channel while instances are restarted, and what they hear: figures, judged by nobody.
import { given, until } from "./common.mjs";
import { all_are_over, stayers } from "./stays.mjs";

const clients = stayers(given.ports[0], given.clients);
await until("all are there", () => clients.every(({ stays }) => stays.length), given.patience);
console.log("there");
// Who does not come back is told of, too.
await all_are_over(clients, given.patience).catch(() => {});
process.stdout.write(`${JSON.stringify(clients)}\n`, () => process.exit(0));
