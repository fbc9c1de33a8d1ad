// Some clients of y-websocket write at random, and at the end all have the same: a line of JSON.
// Arguments: their URLs as JSON, how often each changes something, and where chance begins.

import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

const [urls, turns, seed] = process.argv.slice(2).map((text) => JSON.parse(text));
let state = seed;
const random = (limit) => (state = (state * 1103515245 + 12345) % 2147483648) % limit;
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const clients = urls.map((url) => {
  const doc = new Y.Doc();
  const provider = new WebsocketProvider(url, "notes", doc, { disableBc: true, maxBackoffTime: 200 });
  return { doc, provider, text: doc.getText("text"), map: doc.getMap("map") };
});

const write = async ({ doc, text, map }, number) => {
  for (let turn = 0; turn < turns; turn += 1) {
    doc.transact(() => {
      if (random(3)) text.insert(random(text.length + 1), `${number}:${turn} é`);
      else if (text.length) text.delete(random(text.length), 1);
      map.set(`key ${random(5)}`, `${number}:${turn}`);
    });
    await pause(random(20));
  }
};
await Promise.all(clients.map(write));
console.log("written");

const shown = () => clients.map(({ text, map }) => JSON.stringify([text.toString(), Object.entries(map.toJSON()).sort()]));
while (new Set(shown()).size > 1 || !clients.every(({ provider }) => provider.synced)) await pause(20);
console.log(JSON.stringify({ text: clients[0].text.toString(), map: clients[0].map.toJSON() }));
process.exit();
