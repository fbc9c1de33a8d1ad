// The library for Node judges requests as they came; one that was changed it must refuse.
import { given, server } from "./common.mjs";

const library = server(1);
for (const { headers, body } of given.requests) {
  const webhook = library.webhook({ headers, rawBody: body });
  if (!webhook.isValid()) throw new Error(`refused: ${body}`);
  if (webhook.getEvents().length === 0) throw new Error(`no events: ${body}`);
  if (library.webhook({ headers, rawBody: `${body} ` }).isValid()) throw new Error("taken though it was changed");
}
console.log("passed");
