// The SDK of AWS for JavaScript, unmodified, against `@connections`: what it does, and the name of each of its errors.
import {
  ApiGatewayManagementApiClient,
  DeleteConnectionCommand,
  GetConnectionCommand,
  PostToConnectionCommand,
} from "@aws-sdk/client-apigatewaymanagementapi";

import { equal, finish, given, until } from "./common.mjs";

const [port] = given.ports;
const sdk = (more = {}) =>
  new ApiGatewayManagementApiClient({
    endpoint: `http://127.0.0.1:${port}/prod`,
    region: "eu-central-1",
    credentials: { accessKeyId: given.key, secretAccessKey: given.secret },
    maxAttempts: 1,
    ...more,
  });

const client = sdk();
const post = (ConnectionId, Data, by = client) => by.send(new PostToConnectionCommand({ ConnectionId, Data }));
const failed = async (what, name, asked) => {
  const error = await asked.then(
    () => ({ name: "nothing failed" }),
    (reason) => reason,
  );
  equal(what, error.name, name);
};

const socket = new WebSocket(`ws://127.0.0.1:${port}/prod`);
const got = [];
let ended;
socket.onmessage = ({ data }) => got.push(data);
socket.onclose = ({ code, reason }) => (ended = [code, reason]);
await until("connected", () => socket.readyState === WebSocket.OPEN);
socket.send(JSON.stringify({ action: "whoami" }));
await until("its id", () => got.length === 1);
const id = got.pop();

// -- as A1
await post(id, "Grüße");
await post(id, new TextEncoder().encode("octets"));
await post(id, "x".repeat(131_072));
await until("messages", () => got.length === 3);
equal("messages", [got[0], got[1], got[2].length], ["Grüße", "octets", 131_072]);
const found = await client.send(new GetConnectionCommand({ ConnectionId: id }));
for (const at of [found.ConnectedAt, found.LastActiveAt]) {
  if (!(at instanceof Date) || Math.abs(Date.now() - at) > 60_000) throw new Error(`no time of now: ${at}`);
}
equal("whose", found.Identity.SourceIp, "127.0.0.1");

// -- as A2
await failed("too large", "PayloadTooLargeException", post(id, "x".repeat(131_073)));
await failed("no id", "BadRequestException", post("nonsense", "x"));
const wrong = { credentials: { accessKeyId: given.key, secretAccessKey: "wrong" } };
await failed("wrong secret", "ForbiddenException", post(id, "x", sdk(wrong)));
const unknown = { credentials: { accessKeyId: "AKIDUNKNOWN", secretAccessKey: given.secret } };
await failed("unknown key", "ForbiddenException", post(id, "x", sdk(unknown)));
await failed("another time", "ForbiddenException", post(id, "x", sdk({ systemClockOffset: 6 * 60 * 1000 })));
let number = 0;
let full;
while (!full) {
  await post(given.silent, String(number).padEnd(100_000)).then(
    () => (number += 1),
    (error) => (full = error),
  );
}
equal("it does not read", full.name, "LimitExceededException");

const deleted = await client.send(new DeleteConnectionCommand({ ConnectionId: id }));
equal("deleted", deleted.$metadata.httpStatusCode, 204);
await until("the end", () => ended);
equal("the end", ended, [1000, "Connection Closed Normally"]);
for (const command of [GetConnectionCommand, DeleteConnectionCommand]) {
  await failed("gone", "GoneException", client.send(new command({ ConnectionId: id })));
}
await failed("gone", "GoneException", post(id, "x"));
await failed("never given", "GoneException", post("AAAAAAAAAAAAAAA=", "x"));
finish();
