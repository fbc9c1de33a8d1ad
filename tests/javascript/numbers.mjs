// Collects the topic "numbers" until "stop" is published to "control"; prints states, gaps and the end, a line each.
// Arguments: the URL, and the options of connect in JSON.

import { connect } from "../../rawws/topics/js/rawws.js";
import { options } from "./options.mjs";

const [url, given] = process.argv.slice(2);
const hub = connect(url, { ...options, ...JSON.parse(given) });
const tell = (fields) => console.log(JSON.stringify(fields));
const log = [];

hub.onstate = (state) => tell({ ...state, has: log.length });
const numbers = hub.subscribe("numbers", { since: "earliest" });
numbers.onmessage = ({ data }) => {
  log.push(Number(data));
  if (log.length % 100 === 0) tell({ has: log.length });
};
numbers.ongap = (cursor) => {
  log.push("gap");
  tell({ gap: cursor });
};
for await (const { data } of hub.subscribe("control")) if (data === "stop") break;
const { transport } = hub;
hub.close();
tell({ transport, log });
// Nothing may keep the process: it ends by itself.
