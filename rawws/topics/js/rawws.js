// rawws.js: topics of a rawws hub, over whatever connection there is (docs/use/javascript.md; docs/use/rawws.v1.md).
//
// Laws:
// 1. A cursor only goes forward: whatever connection brings a publication, it is given once.
// 2. What is not known to have come is said: `recovered: false` for what was missed, an error for what was published.
// 3. Whatever waits has a bound, and after close() there is no timer, no connection and no promise left.

const DEFAULTS = {
  transports: ["websocket", "stream", "poll"], // best first
  token: "", // goes into the URL as ?token=: a string, or a function that gives one at each connection
  credentials: "same-origin", // of fetch: "include" sends cookies to another origin
  queue: 1000, // publications that may wait for their answer
  queueSize: 4 << 20, // and their size, in characters
  buffer: 1000, // publications that may wait for `for await`
  openTimeout: 10_000, // until a transport must have brought something, in milliseconds
  pingInterval: 25_000, // of silence; the server's own signs of life come every 15 s over streams, 25 s over polls
  stableAfter: 10_000, // a transport that lives so long is taken to work
  betterAfter: 2_000, // until a better transport is tried again, for the first time; then twice as long each time
  retryBase: 500, // of the wait before a reconnect, twice as long each time,
  retryCap: 30_000, // up to this
};
const PROTOCOL = "rawws.v1";
const STRIKES = 2; // so many failures that no server explains, and the next transport has its turn
const BETTER_CAP = 600_000;
const LISTED = 1000; // members that are held: the server lists no more
const PRESENCE_INTERVAL = 10_000; // between two looks at who is there, where nobody tells
const LINE = 4 << 20; // characters of one event: a message of 1 MiB in base64 is 1.4

/** What the server refused, or what did not come about here. */
export class HubError extends Error {
  constructor(code, reason) {
    super(reason ? `${code}: ${reason}` : code);
    this.name = "HubError";
    this.code = code;
    this.reason = reason ?? "";
  }
}

/** Connect to the one URL of a hub: for WebSocket, event streams, polls and posts. */
export function connect(url, options) {
  return new Hub(url, options);
}

class Hub {
  /** Called with {state, transport, reason} whenever one of them changes. */
  onstate = null;
  state = "connecting";
  transport = null;

  #url;
  #options;
  #kinds;
  #level = 0; // which of #kinds is in use
  #strikes = 0;
  #attempt = 0;
  #link = null; // the connection in use
  #better = null; // one that is tried beside it
  #tried = 0;
  #betterAfter;
  #subscriptions = new Map();
  #queue = []; // what is to be asked
  #sent = new Map(); // what is asked, by id
  #held = 0;
  #posting = null;
  #id = 0;
  #timers = new Map();
  #refreshing = false;
  #wake = () => this.#look();

  constructor(url, options = {}) {
    for (const name in options) if (!(name in DEFAULTS)) throw new TypeError(`there is no option ${name}`);
    this.#options = { ...DEFAULTS, ...options };
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    for (const kind of this.#options.transports) {
      if (!DEFAULTS.transports.includes(kind)) throw new TypeError(`there is no transport ${kind}`);
    }
    this.#kinds = this.#options.transports.filter((kind) => kind !== "websocket" || globalThis.WebSocket);
    if (!this.#kinds.length) throw new TypeError("no transport is left, needed is one");
    this.#betterAfter = this.#options.betterAfter;
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    this.#after("retry", 0, () => this.#reconnect());
  }

  // -- what users call

  /** Subscribe to a topic; one subscription of each. */
  subscribe(topic, options = {}) {
    this.#checkOpen();
    if (this.#subscriptions.has(topic)) throw new HubError("limit", `there is a subscription to ${topic} already`);
    const subscription = new Subscription(topic, options, this.#options.buffer, () => this.#unsubscribe(subscription));
    this.#subscriptions.set(topic, subscription);
    this.#enter(subscription);
    return subscription;
  }

  /** Publish a string or octets; the promise is of the publication's cursor. */
  async publish(topic, data, { key } = {}) {
    const fields = typeof data === "string" ? { data } : { base64: toBase64(data) };
    return (await this.#ask({ publish: topic, ...fields, key })).cursor;
  }

  /** Ask who is present: {members, count}. */
  async presence(topic) {
    const { members, count } = await this.#ask({ presence: topic });
    return { members, count };
  }

  /** End everything. */
  close() {
    if (this.state === "closed") return;
    this.#tell("closed", null, "");
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    const error = new HubError("closed", "the hub was closed");
    for (const link of [this.#link, this.#better]) if (link) drop(link);
    this.#link = this.#better = null;
    this.#posting?.abort();
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    for (const ask of [...this.#queue.splice(0), ...this.#sent.values()]) this.#settle(ask, error);
    for (const subscription of this.#subscriptions.values()) subscription.end(null);
    this.#subscriptions.clear();
  }

  // -- one connection after another

  #reconnect() {
    this.#timers.delete("retry");
    this.#link = this.#dial(this.#kinds[this.#level]);
  }

  #dial(kind) {
    const link = { kind, open: false, gone: false, heard: Date.now(), pinged: 0, close() {} };
    this.#after(link, this.#options.openTimeout, () => this.#lose(link, `${kind} brought nothing in time`));
    const start = kind === "websocket" ? this.#socket(link) : this.#follow(link);
    start.catch((error) => this.#lose(link, error.reason ?? String(error)));
    return link;
  }

  /** Return the URL for one request. */
  async #address(fields = []) {
    const { token } = this.#options;
    const given = typeof token === "function" ? await token() : token;
    const url = new URL(this.#url);
    for (const [name, value] of fields) url.searchParams.append(name, value);
    if (given) url.searchParams.set("token", given);
    return url;
  }

  /** Something came: the transport works so far. */
  #opened(link) {
    link.heard = Date.now();
    if (link.open) return;
    link.open = true;
    this.#clear(link);
    if (link === this.#better) {
      drop(this.#link);
      this.#clear(this.#link, "presence");
      this.#leave();
      this.#link = link;
      this.#better = null;
      this.#level = this.#kinds.indexOf(link.kind);
      this.#strikes = STRIKES - 1; // it failed before
      if (link.send) this.#enterAll();
    }
    this.#tell("open", link.kind, "");
    this.#after("stable", this.#options.stableAfter, () => {
      this.#strikes = this.#attempt = 0;
      if (!this.#level) this.#betterAfter = this.#options.betterAfter;
    });
    this.#watch(link);
    if (this.#level) this.#plan();
    if (!link.send) this.#lookAround();
    this.#flush();
  }

  #lose(link, reason, blamed = true) {
    if (link.gone) return;
    drop(link);
    this.#clear(link);
    if (link === this.#better) {
      this.#better = null;
      this.#plan();
      return;
    }
    this.#leave();
    if (this.#better) drop(this.#better);
    this.#clear(this.#better, "better", "watch", "presence");
    this.#link = this.#better = null;
    // One that lived for a while has cleared its strikes, and this is the first of the next.
    const early = this.#timers.has("stable") || !link.open;
    this.#clear("stable");
    if (blamed && early && ++this.#strikes >= STRIKES) {
      this.#strikes = 0;
      this.#level = (this.#level + 1) % this.#kinds.length;
    }
    this.#tell("connecting", null, reason);
    // Full jitter: whoever lost the same server does not come back together.
    const { retryBase, retryCap } = this.#options;
    const wait = Math.random() * Math.min(retryCap, retryBase * 2 ** this.#attempt++);
    this.#after("retry", wait, () => this.#reconnect());
  }

  /** Have a better transport tried beside the one in use. */
  #plan() {
    this.#after("better", this.#betterAfter * (0.5 + Math.random() / 2), () => {
      this.#better = this.#dial(this.#kinds[this.#tried++ % this.#level]);
    });
    this.#betterAfter = Math.min(2 * this.#betterAfter, BETTER_CAP);
  }

  /** Look whether the connection in use still lives. */
  #watch(link) {
    const { pingInterval, openTimeout } = this.#options;
    const quiet = Date.now() - link.heard;
    if (quiet > pingInterval + openTimeout) {
      this.#lose(link, `nothing came for ${Math.round(quiet / 1000)} s`);
      return;
    }
    if (quiet >= pingInterval && link.pinged < link.heard) this.#ping(link);
    this.#after("watch", openTimeout / 2, () => this.#watch(link));
  }

  /** Ask for what is done already and is allowed to all. */
  #ping(link) {
    link.pinged = Date.now();
    link.send?.(JSON.stringify({ id: 0, unsubscribe: `ping ${Math.random()}` }));
  }

  /** The network, or the page, is back: do not wait. */
  #look() {
    if (globalThis.document?.hidden) return;
    const link = this.#link;
    if (this.#timers.has("retry")) {
      this.#attempt = 0;
      this.#after("retry", 0, () => this.#reconnect());
    } else if (link?.open && link.send) {
      // It may be a connection of the network before: it has less time to answer now.
      this.#ping(link);
      const asked = link.pinged;
      this.#after(link, this.#options.openTimeout, () => {
        if (link.heard < asked) this.#lose(link, "nothing came since the network changed");
      });
    } else if (link?.open) this.#refresh();
  }

  // -- WebSocket

  async #socket(link) {
    const url = await this.#address();
    if (link.gone) return;
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, PROTOCOL);
    link.close = () => socket.close();
    socket.onopen = () => {
      link.send = (text) => socket.send(text);
      this.#ping(link);
      if (link === this.#link) this.#enterAll();
    };
    socket.onmessage = ({ data }) => {
      try {
        if (!link.gone) this.#hear(link, JSON.parse(data));
      } catch (error) {
        this.#lose(link, String(error));
      }
    };
    // A server that says goodbye is no proxy that breaks something.
    socket.onclose = ({ code, reason, wasClean }) => this.#lose(link, `${code} ${reason}`.trim(), !wasClean);
  }

  #enterAll() {
    for (const subscription of this.#subscriptions.values()) this.#enter(subscription);
  }

  /** Have the connection in use bring a subscription too. */
  #enter(subscription) {
    const link = this.#link;
    const { topic, cursor, options } = subscription;
    if (!link?.send) {
      this.#refresh();
      if (options.watch && link?.open) this.#lookAround();
      return;
    }
    const id = ++this.#id;
    this.#sent.set(id, {
      again: true,
      resolve: (answer) => subscription.begin(answer),
      reject: (error) => this.#fail(subscription, error),
    });
    const { join, watch } = options;
    link.send(JSON.stringify({ id, subscribe: topic, since: cursor || undefined, join, watch }));
  }

  #unsubscribe(subscription) {
    if (this.#subscriptions.get(subscription.topic) !== subscription) return;
    this.#subscriptions.delete(subscription.topic);
    const link = this.#link;
    if (link?.send) link.send(JSON.stringify({ unsubscribe: subscription.topic }));
    else this.#refresh();
    subscription.end(null);
  }

  #fail(subscription, error) {
    if (this.#subscriptions.get(subscription.topic) !== subscription) return;
    this.#subscriptions.delete(subscription.topic);
    subscription.end(error);
  }

  /** End a connection: no subscription is live, and unanswered requests fail or are sent again. */
  #leave() {
    const error = new HubError("unanswered", "the connection broke before the answer: it may be done, or not");
    for (const subscription of this.#subscriptions.values()) subscription.live = false;
    for (const ask of this.#sent.values()) this.#settle(ask, ask.again ? null : error);
    this.#sent.clear();
  }

  #hear(link, envelope) {
    const { id, topic } = envelope;
    this.#opened(link);
    if (link.gone) return;
    const ask = this.#sent.get(id);
    if (ask) {
      this.#sent.delete(id);
      this.#settle(ask, envelope.error && new HubError(envelope.error, envelope.reason), envelope);
    } else if (topic !== undefined) this.#subscriptions.get(topic)?.take(envelope);
  }

  // -- event streams and polls

  /** Bring what is subscribed to, by one request or one after the other, until it breaks. */
  async #follow(link) {
    await null; // whoever dials has the link by then
    while (!link.gone) {
      const control = new AbortController();
      let again = false;
      link.close = () => control.abort();
      link.restart = () => {
        again = true;
        control.abort();
      };
      const wanted = [...this.#subscriptions.values()];
      try {
        if (wanted.length) await (link.kind === "stream" ? this.#stream : this.#poll).call(this, link, wanted, control);
        else {
          this.#opened(link);
          await new Promise((resolve) => control.signal.addEventListener("abort", resolve));
        }
      } catch (error) {
        if (!again) throw error;
      }
    }
  }

  /** Begin anew with other topics, once for all that is said in one turn. */
  #refresh() {
    if (this.#refreshing) return;
    this.#refreshing = true;
    queueMicrotask(() => {
      this.#refreshing = false;
      for (const link of [this.#link, this.#better]) link?.restart?.();
    });
  }

  async #fetch(control, wanted, fields = [], headers = {}) {
    const since = wanted.filter(({ cursor }) => cursor).map(({ topic, cursor }) => `${encodeURIComponent(topic)}=${cursor}`);
    const topics = wanted.map(({ topic }) => ["topic", topic]);
    const url = await this.#address([...topics, ...(since.length ? [["since", since.join("&")]] : []), ...fields]);
    const { credentials } = this.#options;
    return fetch(url, { signal: control.signal, headers, credentials, cache: "no-store" });
  }

  async #stream(link, wanted, control) {
    const answer = await this.#fetch(control, wanted, [], { Accept: "text/event-stream" });
    if (!answer.ok) return this.#refused(link, answer, wanted, control);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) throw new HubError("ended", "the stream ended");
      link.heard = Date.now();
      // The server writes each envelope as one line of data; ids, comments and blank lines say nothing new.
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      if (rest.length > LINE) throw new HubError("size", "an event has no end");
      for (const line of lines) {
        if (control.signal.aborted) return;
        if (line.startsWith("data:")) this.#hear(link, JSON.parse(line.slice(5)));
      }
    }
  }

  async #poll(link, wanted, control) {
    // The first one is answered at once: so it is known to work.
    const timeout = link.open ? Math.max(1, Math.min(25, Math.round(this.#options.pingInterval / 1000))) : 0;
    const answer = await this.#fetch(control, wanted, [["timeout", timeout]]);
    if (!answer.ok) return this.#refused(link, answer, wanted, control);
    const found = answer.status === 204 ? null : await answer.json();
    if (control.signal.aborted) return;
    this.#opened(link);
    if (!link.gone && found) this.#takeAll(wanted, found);
  }

  /** Take what a poll brought. */
  #takeAll(wanted, { publications, cursor, recovered }) {
    for (const subscription of wanted) {
      const now = cursorOf(cursor, subscription.topic);
      const mine = publications.filter(({ topic }) => topic === subscription.topic);
      const [epoch, offset] = now.split(":");
      // It is told of all topics together: of one, it is known if what came leads from one cursor to the other.
      const from = `${epoch}:${offset - mine.length}`;
      const known = recovered || [from, "earliest", ""].includes(subscription.cursor);
      if (!subscription.live || !known) subscription.begin({ cursor: known ? from : now, recovered: known });
      for (const publication of mine) subscription.take(publication);
    }
  }

  /** Find out what of a request was refused, and go on without it. */
  async #refused(link, answer, wanted, control) {
    const error = await errorOf(answer);
    if (!error) throw new HubError("http", `the answer has the status ${answer.status}`);
    let [last] = wanted.slice(-1);
    for (const subscription of wanted.length > 1 ? wanted : []) {
      const alone = await this.#fetch(control, [subscription], [["timeout", 0]]);
      const why = alone.ok ? null : await errorOf(alone);
      if (why) {
        this.#fail(subscription, why);
        last = null;
      }
    }
    // Each alone is allowed: they are too many.
    if (last) this.#fail(last, error);
    this.#opened(link);
  }

  /** Ask who is there, for those who want to know: over HTTP nobody tells. */
  #lookAround() {
    for (const subscription of this.#subscriptions.values()) {
      if (subscription.options.watch) {
        this.presence(subscription.topic).then(
          (found) => subscription.list(found),
          () => {}, // the next look is due soon
        );
      }
    }
    this.#after("presence", PRESENCE_INTERVAL, () => this.#lookAround());
  }

  // -- what is asked

  #ask(fields) {
    if (this.state === "closed") return Promise.reject(new HubError("closed", "the hub was closed"));
    const id = ++this.#id;
    const text = JSON.stringify({ id, ...fields });
    const { queue, queueSize } = this.#options;
    if (this.#queue.length + this.#sent.size >= queue || this.#held + text.length > queueSize) {
      return Promise.reject(new HubError("queue", `${queue} requests or ${queueSize} characters wait already`));
    }
    this.#held += text.length;
    return new Promise((resolve, reject) => {
      this.#queue.push({ id, text, resolve, reject });
      this.#flush();
    });
  }

  #settle(ask, error, answer) {
    this.#held -= ask.text?.length ?? 0;
    if (error) ask.reject(error);
    else if (answer) ask.resolve(answer);
  }

  #flush() {
    const link = this.#link;
    if (!link?.open || this.#posting) return;
    if (!link.send) {
      if (this.#queue.length) this.#post(this.#queue.shift());
      return;
    }
    for (const ask of this.#queue.splice(0)) {
      this.#sent.set(ask.id, ask);
      link.send(ask.text);
    }
  }

  /** Ask by a request of its own: one after the other, so they stay in order. */
  async #post(ask) {
    const control = (this.#posting = new AbortController());
    this.#after(control, this.#options.openTimeout, () => control.abort());
    try {
      const { credentials } = this.#options;
      const request = { method: "POST", body: ask.text, signal: control.signal, credentials };
      const answer = await fetch(await this.#address(), request);
      const error = answer.ok ? null : ((await errorOf(answer)) ?? new HubError("http", `status ${answer.status}`));
      this.#settle(ask, error, error ? null : await answer.json());
    } catch (error) {
      this.#settle(ask, new HubError("unanswered", `there was no answer: it may be done, or not (${error})`));
    }
    this.#clear(control);
    this.#posting = null;
    this.#flush();
  }

  // -- timers and states

  #after(name, wait, act) {
    this.#clear(name);
    if (this.state === "closed") return;
    const timer = setTimeout(() => {
      this.#timers.delete(name);
      act();
    }, wait);
    this.#timers.set(name, timer);
  }

  #clear(...names) {
    for (const name of names) {
      clearTimeout(this.#timers.get(name));
      this.#timers.delete(name);
    }
  }

  #checkOpen() {
    if (this.state === "closed") throw new HubError("closed", "the hub was closed");
  }

  #tell(state, transport, reason) {
    Object.assign(this, { state, transport });
    call(this.onstate, { state, transport, reason });
  }
}

class Subscription {
  /** Called with each publication; without it, they wait for `for await`. */
  onmessage = null;
  /** Called with the new cursor where it is not known what was missed: get the state anew. */
  ongap = null;
  /** Called with {members, count} when somebody came or went; with `join` or `leave`, where it is known who. */
  onpresence = null;
  /** Called when the server refuses the subscription; then it is over. */
  onerror = null;
  /** Behind which publication it is: `since` of one that goes on here, perhaps on another day. */
  cursor;
  /** Who is present, by id, and how many they are. */
  members = new Map();
  count = 0;
  /** The own id among them. */
  present = null;
  /** Whether the connection in use brings it. */
  live = false;

  #buffer = [];
  #limit;
  #wake = null;
  #over = false;
  #error = null;
  #close;
  #ready;
  #settle;

  constructor(topic, options, limit, close) {
    this.topic = topic;
    this.options = options;
    this.cursor = cursorOf(options.since ?? "", topic);
    this.#limit = limit;
    this.#close = close;
    this.#ready = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#ready.catch(() => {}); // whoever waits for it is told all the same
  }

  /** Of {cursor, recovered}, when the server has accepted it for the first time. */
  get ready() {
    return this.#ready;
  }

  /** End it. */
  close() {
    this.#close();
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#buffer.length) yield this.#buffer.shift();
        if (this.#error) throw this.#error;
        if (this.#over) return;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
    }
  }

  // -- what the hub calls

  /** Take the answer to `subscribe`. */
  begin({ cursor, recovered, present, members, count }) {
    if (this.#over) return;
    this.live = true;
    // What another connection brought meanwhile counts.
    if (!recovered || isBehind(this.cursor, cursor)) this.cursor = cursor;
    this.present = present ?? null;
    if (members) this.list({ members, count });
    this.#settle.resolve({ cursor, recovered });
    if (recovered) return;
    call(this.ongap, cursor);
    if (!this.onmessage) this.#put({ topic: this.topic, cursor, recovered });
  }

  /** Take what came. */
  take({ cursor, data, base64, join, leave, recovered, error }) {
    if (error) return; // it cannot be served for now: what is missed follows, or a cursor that says it is lost
    if (recovered !== undefined) this.begin({ cursor, recovered });
    else if (!this.live) return; // it is of an earlier subscription
    else if (join || leave) this.#move(join, leave);
    else if (isBehind(this.cursor, cursor)) {
      this.cursor = cursor || this.cursor; // from a server that cannot reach the others for now, it has none
      const publication = { topic: this.topic, cursor, data: data ?? fromBase64(base64) };
      if (this.onmessage) call(this.onmessage, publication);
      else this.#put(publication);
    }
  }

  /** Take the list of who is present. */
  list({ members, count }) {
    this.members = new Map(members.map(({ id, info }) => [id, info]));
    this.count = count;
    call(this.onpresence, { members: this.members, count });
  }

  end(error) {
    if (this.#over) return;
    this.#over = true;
    this.live = false;
    this.#error ??= error;
    this.#settle.reject(error ?? new HubError("closed", "the subscription was closed"));
    this.#wake?.();
    if (error) call(this.onerror, error);
  }

  #move(join, leave) {
    const { id, info } = join ?? leave;
    if (join ? !this.members.has(id) : true) this.count += join ? 1 : -1;
    if (leave) this.members.delete(id);
    else if (this.members.size < LISTED) this.members.set(id, info);
    call(this.onpresence, { members: this.members, count: this.count, join, leave });
  }

  #put(item) {
    if (this.#error) return;
    if (this.#buffer.push(item) > this.#limit) {
      this.#buffer = [];
      this.#error = new HubError("slow", `over ${this.#limit} publications waited to be taken`);
    }
    this.#wake?.();
  }
}

// -- what both need

function drop(link) {
  link.gone = true;
  link.close();
}

/** Call what a user gave; what it throws is for the console, and disturbs nobody else. */
function call(callback, value) {
  try {
    callback?.(value);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Return the cursor for one topic out of a joined one. */
function cursorOf(since, topic) {
  if (!since.includes("=")) return since;
  for (const part of since.split("&")) {
    const [name, cursor] = part.split("=");
    if (decodeURIComponent(name) === topic) return cursor;
  }
  return "";
}

function isBehind(ours, theirs) {
  const [epoch, offset] = ours.split(":");
  const [other, next] = theirs.split(":");
  return epoch !== other || Number(offset) < Number(next);
}

/** Return what an answer says is wrong, null where it is none of the hub's. */
async function errorOf(answer) {
  try {
    const { error, reason } = await answer.json();
    return error ? new HubError(error, reason) : null;
  } catch {
    return null;
  }
}

function toBase64(data) {
  const octets = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : data instanceof ArrayBuffer && new Uint8Array(data);
  if (!octets) throw new TypeError(`data is ${typeof data}, allowed are a string, an ArrayBuffer and a view of one`);
  let text = "";
  // So many arguments at once: more overflow the stack.
  for (let at = 0; at < octets.length; at += 8192) text += String.fromCharCode(...octets.subarray(at, at + 8192));
  return btoa(text);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
