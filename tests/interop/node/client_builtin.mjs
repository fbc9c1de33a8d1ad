// The client's part of the scenario, played by the WebSocket that is built into node.

import { readFile } from "node:fs/promises";
import { play } from "./standard.mjs";

const scenario = JSON.parse(await readFile(new URL("../scenario.json", import.meta.url), "utf8"));
console.log("report", JSON.stringify(await play(process.argv[2], scenario)));
