// An oracle for event streams: each line of the input is a stream, as a JSON list of its pieces in hexadecimal; each
// line of the output is what `eventsource-parser` finds in it.

import { createInterface } from "node:readline";
import { createParser } from "eventsource-parser";

function parse(pieces) {
  const events = [];
  let retry = null;
  const parser = createParser({
    onEvent: ({ data, event = null, id = null }) => events.push({ data, event, id }),
    onRetry: (milliseconds) => {
      retry = Math.min(milliseconds, Number.MAX_SAFE_INTEGER);
    },
  });
  const decoder = new TextDecoder();
  for (const piece of pieces) {
    parser.feed(decoder.decode(Buffer.from(piece, "hex"), { stream: true }));
  }
  // It keeps a CR back until it sees what follows. A line that is no blank one dispatches nothing.
  parser.feed(":\n");
  return { events, retry };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(parse(JSON.parse(line)))}\n`);
}
