// The client's part of the scenario, played by a WebSocket of the WHATWG standard: of a browser, or built into node.
// It can send neither fragments nor pings.

import { compressible, digest, messages } from "./scenario.mjs";

// A connection whose messages, and at last whose end, are waited for with `next`.
class Connection {
  constructor(uri) {
    this.ws = new WebSocket(uri);
    this.ws.binaryType = "arraybuffer";
    this.events = [];
    this.waiting = null;
    for (const type of ["open", "message", "close"]) {
      this.ws.addEventListener(type, (event) => this.#take(event));
    }
  }

  #take(event) {
    this.events.push(event);
    this.waiting?.();
  }

  async next(type) {
    while (this.events.length === 0) {
      await new Promise((resolve) => (this.waiting = resolve));
    }
    const event = this.events.shift();
    if (event.type !== type) {
      throw new Error(`${this.ws.url}: waited for ${type}, got ${event.type} ${event.code ?? ""} ${event.reason ?? ""}`);
    }
    return event;
  }

  async echo(message) {
    this.ws.send(message);
    return digest((await this.next("message")).data);
  }

  async end() {
    const { code, reason, wasClean } = await this.next("close");
    if (!wasClean) {
      throw new Error(`${this.ws.url}: the connection ended with code ${code}, but not cleanly`);
    }
    return { code, reason };
  }
}

async function open(uri) {
  const connection = new Connection(uri);
  await connection.next("open");
  return connection;
}

async function closed(connection, result) {
  connection.ws.close(1000);
  await connection.end();
  return result;
}

async function echo(base, scenario) {
  const connection = await open(`${base}/echo`);
  const echoed = [];
  for (const message of messages(scenario)) {
    echoed.push(await connection.echo(message));
  }
  connection.ws.close(scenario.closeByClient.code, scenario.closeByClient.reason);
  return { echoed, closed_by_client: await connection.end() };
}

async function compressed(base, scenario) {
  const connection = await open(`${base}/compressed`);
  const deflate = connection.ws.extensions.startsWith("permessage-deflate");
  return closed(connection, { deflate, compressed: await connection.echo(compressible(scenario)) });
}

async function fragments(base) {
  const connection = await open(`${base}/fragments`);
  const got = [await connection.next("message"), await connection.next("message")];
  return closed(connection, { fragments: await Promise.all(got.map(({ data }) => digest(data))) });
}

async function pinged(base) {
  const connection = await open(`${base}/ping`);
  return closed(connection, { pinged: (await connection.next("message")).data });
}

async function closedByServer(base) {
  const connection = await open(`${base}/close`);
  return { closed_by_server: await connection.end() };
}

export async function play(base, scenario) {
  return {
    fragmented: null,
    pong: null,
    ...(await echo(base, scenario)),
    ...(await compressed(base, scenario)),
    ...(await fragments(base)),
    ...(await pinged(base)),
    ...(await closedByServer(base)),
  };
}
