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
  WebSocket: undefined, // a class in the place of the global one: Node 20 has none
  openTimeout: 10_000, // until a transport must have brought something, in milliseconds
  pingInterval: 25_000, // of silence; the server's own signs of life come every 15 s over streams, 25 s over polls
  stableAfter: 10_000, // a transport that lives so long is taken to work
  betterAfter: 2_000, // until a better transport is tried again, for the first time; then twice as long each time
  retryBase: 500, // of the wait before a reconnect, twice as long each time,
  retryCap: 30_000, // up to this
};
const PROTOCOL = "rawws.v1";
// What a server closes with that lets in nobody, as statuses: 3000 and 3003 are IANA's, 44xx is common use.
const REFUSALS = { 3000: 401, 3003: 403, 4401: 401, 4403: 403, 4404: 404 };
const STRIKES = 2; // so many failures that no server explains, and the next transport has its turn
const BETTER_CAP = 600_000;
const LISTED = 1000; // members that are held: the server lists no more
const PRESENCE_INTERVAL = 10_000; // between two looks at who is there, where nobody tells
const LINE = 4 << 20; // characters of one event: a message of 1 MiB in base64 is 1.4

/** What the server refused, or what did not come about here. */
export class HubError extends Error {
  constructor(code, reason) {
    const told = reason || (code === "refused" ? "the hub does not allow it" : "");
    super(told ? `${code}: ${told}` : code);
    this.name = "HubError";
    this.code = code;
    this.reason = reason ?? "";
  }
}

/** Connect to the one URL of a hub: for WebSocket, event streams, polls and posts. */
export function connect(url, options) {
  return new Hub(url, options);
}

/** Has each event twice: as `onmessage`, and as listeners of "message", which get the same. */
class Emitter {
  #listeners = {};

  constructor(...types) {
    for (const type of types) {
      this[`on${type}`] = null;
      this.#listeners[type] = new Set();
    }
  }

  addEventListener(type, listener, options = {}) {
    check("option", Object.keys(options), []);
    check("event", [type], Object.keys(this.#listeners));
    this.#listeners[type].add(listener);
  }

  removeEventListener(type, listener) {
    this.#listeners[type]?.delete(listener);
  }

  /** Call whoever listens, and tell whether there is anybody. */
  static emit(target, type, value) {
    const listeners = [target[`on${type}`], ...target.#listeners[type]].filter(Boolean);
    for (const listener of listeners) call(listener, value);
    return listeners.length > 0;
  }
}

class Hub extends Emitter {
  /** Called with {status, reason} when the server lets nobody in; it may return a new token, or a promise of one. */
  ontoken = null;
  /** Called with {name, data} when the server calls the page; what it returns, or a promise of it, is the answer. */
  oncall = null;
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
  #channels = new Map();
  #queue = []; // what is to be asked
  #sent = new Map(); // what is asked, by id
  #held = 0;
  #posting = null;
  #id = 0;
  #timers = new Map();
  #refreshing = false;
  #away = false; // the page was left, and may be shown again
  #reached = false; // the hub has said something
  #renewed = false; // a new token was given, and nothing came yet
  #end = null; // the error that all get, when it is over
  #notice = ({ type }) => (type === "pagehide" ? this.#hide() : this.#look(type));

  constructor(url, options = {}) {
    // Called with {state, transport, reason} whenever one of them changes.
    super("state");
    check("option", Object.keys(options), Object.keys(DEFAULTS));
    this.#options = { ...DEFAULTS, ...options };
    this.#options.WebSocket ??= globalThis.WebSocket;
    // Strings: the URL of React Native can be read, and not changed.
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    const whole = !base || /^\w+:/.test(url) ? String(url) : new URL(url, base).href;
    this.#url = whole.replace(/^ws/, "http").replace(/#.*/, "");
    if (!/^https?:/.test(this.#url)) throw new TypeError(`the URL is ${url}, allowed are http, https, ws and wss`);
    check("transport", this.#options.transports, DEFAULTS.transports);
    const needed = { websocket: this.#options.WebSocket, stream: globalThis.TextDecoderStream, poll: true };
    this.#kinds = this.#options.transports.filter((kind) => needed[kind]);
    const { transports } = this.#options;
    if (!this.#kinds.length) throw new TypeError(`there is no ${transports || "transport"} here, "poll" is everywhere`);
    this.#betterAfter = this.#options.betterAfter;
    this.#listen("addEventListener");
    this.#after("retry", 0, () => this.#reconnect());
  }

  // -- what users call

  /** Subscribe to a topic, or by a pattern. All subscriptions to one share what comes over the connection. */
  subscribe(topic, options = {}) {
    if (this.#end) throw this.#end;
    check("option", Object.keys(options), ["since", "join", "watch", "pattern"]);
    const { since = "", join, watch = false, pattern } = options;
    const told = JSON.stringify(join);
    if (join !== undefined && !told) throw new TypeError(`join is a ${typeof join}, allowed is JSON`);
    if (pattern && (told || watch)) throw new HubError("pattern", "presence is that of a topic");
    const key = keyOf(pattern ? { pattern: topic } : { topic });
    const channel = this.#channels.get(key) ?? new Channel(topic, key);
    const before = channel.told;
    if (told && before && told !== before) throw new HubError("limit", `${topic} was joined by ${before}`);
    this.#channels.set(key, channel);
    const close = () => this.#unsubscribe(channel, subscription);
    const subscription = new Subscription(channel, cursorOf(since, key), told, this.#options.buffer, close);
    const { cursor } = subscription;
    // What the connection brings already is shared at once; for more than that, it is asked anew.
    const other = (told && !before) || watch > channel.watch || (cursor && cursor !== channel.cursor);
    const alone = !channel.subscriptions.size;
    channel.subscriptions.add(subscription);
    channel.watch ||= watch;
    if (alone || other) this.#enter(channel);
    else queueMicrotask(() => channel.admit(subscription));
    return subscription;
  }

  /** Publish a string, octets or JSON; the promise is of the publication's cursor. */
  async publish(topic, data, options = {}) {
    check("option", Object.keys(options), ["key", "event", "exclude"]);
    const { cursor } = await this.#ask({ publish: topic, ...payloadOf(data), ...options });
    if (options.exclude) this.#channels.get(topic)?.skip(cursor);
    return cursor;
  }

  /** Look back: {publications, cursor, recovered}, the last ones, those before a cursor, or the first ones behind one. */
  async history(topic, options = {}) {
    check("option", Object.keys(options), ["limit", "before", "since"]);
    const { publications, cursor, recovered } = await this.#ask({ history: topic, ...options });
    return { publications: publications.map(publicationOf), cursor, recovered };
  }

  /** Call a function of the server; the promise is of what it returns. */
  async call(name, data) {
    return (await this.#ask({ call: name, data })).result;
  }

  /** Ask who is present: {members, count}. */
  async presence(topic) {
    const { members, count } = await this.#ask({ presence: topic });
    return { members, count };
  }

  /** End everything. */
  close() {
    this.#finish(new HubError("closed", "the hub was closed"));
  }

  #finish(error, status) {
    if (this.#end) return;
    this.#end = error;
    this.#listen("removeEventListener");
    this.#hangUp();
    this.#tell(error.code, null, error.reason, status);
    for (const ask of this.#queue.splice(0)) this.#settle(ask, error);
    for (const channel of this.#channels.values()) channel.end(status ? error : null);
    this.#channels.clear();
  }

  /** Leave no connection and no timer. */
  #hangUp() {
    for (const link of [this.#link, this.#better]) if (link) drop(link);
    this.#link = this.#better = null;
    this.#posting?.abort();
    this.#clear(...this.#timers.keys());
    this.#leave();
  }

  #listen(how) {
    for (const type of ["online", "pagehide", "pageshow"]) globalThis[how]?.(type, this.#notice);
    globalThis.document?.[how]?.("visibilitychange", this.#notice);
  }

  // -- one connection after another

  #reconnect() {
    this.#timers.delete("retry");
    if (!this.#away) this.#link = this.#dial(this.#kinds[this.#level]);
  }

  #dial(kind) {
    const link = { kind, open: false, gone: false, heard: performance.now(), pinged: 0, asked: new Map(), close() {} };
    this.#after(link, this.#options.openTimeout, () => this.#doubt(link, `${kind} brought nothing in time`));
    const start = kind === "websocket" ? this.#socket(link) : this.#follow(link);
    start.catch((error) => this.#doubt(link, error.reason ?? String(error)));
    return link;
  }

  /** Return the URL for one request. */
  async #address(fields = []) {
    const { token } = this.#options;
    const given = typeof token === "function" ? await token() : token;
    const all = [...fields, ["token", given]].filter(([, value]) => value);
    const query = all.map((field) => field.map(encodeURIComponent).join("=")).join("&");
    return this.#url + (query && (this.#url.includes("?") ? "&" : "?") + query);
  }

  /** A transport failed: ask by another request whether the server lets nobody in, or is not there at all. */
  async #doubt(link, reason) {
    if (link.gone) return;
    if (link.open || link !== this.#link || link.kind === "poll") return this.#lose(link, reason);
    drop(link);
    const control = new AbortController();
    link.close = () => control.abort();
    this.#after(link, this.#options.openTimeout, link.close);
    let blamed = false;
    try {
      const answer = await this.#fetch(control, link, [], [["timeout", "0"]]);
      if (this.#isRefusal(answer.status, await errorOf(answer))) return this.#refuse(link, answer.status);
      blamed = answer.status < 500; // else it is a proxy that misses the server
    } catch {
      // Nobody is there: no other transport would find anybody.
    }
    if (link === this.#link) this.#lost(link, reason, blamed);
  }

  /** Tell whether a status means all of the hub, and not one topic. */
  #isRefusal(status, error) {
    // Behind a proxy that has nobody for a moment, a page that worked goes on.
    return status === 401 || (status === 403 && error?.code !== "refused") || (status === 404 && !this.#reached);
  }

  /** The server lets nobody in: ask for a new token, once, or end. */
  async #refuse(link, status) {
    if (link !== this.#link) return this.#lose(link, "");
    this.#hangUp();
    const reason = `the server answered ${status}`;
    if (this.ontoken && !this.#renewed && status !== 404) {
      this.#renewed = true;
      this.#tell("connecting", null, reason, status);
      const waiting = (this.#link = { close() {} });
      let token;
      try {
        token = await this.ontoken({ status, reason });
      } catch (error) {
        raise(error);
      }
      if (token) this.#options.token = token;
      // The page may have been left meanwhile, to log in, and be back.
      if (this.#link !== waiting) return;
      if (token) return this.#reconnect();
    }
    this.#finish(new HubError("refused", reason), status);
  }

  /** The token is about to end: bring another one over the same connection. If there is none, the server ends it. */
  async #renew(link) {
    const { token } = this.#options;
    const ask = typeof token === "function" ? token : this.ontoken;
    try {
      const given = await ask?.({ status: 401, reason: "the token is about to expire" });
      if (given && ask !== token) this.#options.token = given;
      if (given && link === this.#link) this.#ask({ renew: given }).catch(() => {});
    } catch (error) {
      raise(error);
    }
  }

  /** Something came: the transport works so far. */
  #opened(link) {
    link.heard = performance.now();
    if (link.open) return;
    link.open = true;
    this.#reached ||= link.send || link.asked.size > 0; // a request without topics was none
    this.#renewed = false;
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
    this.#lost(link, reason, blamed);
  }

  #lost(link, reason, blamed) {
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
    const quiet = performance.now() - link.heard;
    if (quiet > pingInterval + openTimeout) {
      this.#lose(link, `nothing came for ${Math.round(quiet / 1000)} s`);
      return;
    }
    if (quiet >= pingInterval && link.pinged < link.heard) this.#ping(link);
    this.#after("watch", openTimeout / 2, () => this.#watch(link));
  }

  /** Ask for what is done already and is allowed to all. */
  #ping(link) {
    link.pinged = performance.now();
    link.send?.(JSON.stringify({ id: 0, unsubscribe: `ping ${Math.random()}` }));
  }

  /** The page is left: it may be kept, and must not look present. */
  #hide() {
    this.#away = true;
    this.#hangUp();
    if (this.state === "open") this.#tell("connecting", null, "the page was left");
  }

  /** The network, or the page, is back: do not wait. */
  #look(type) {
    if (type === "pageshow") this.#away = false;
    if (globalThis.document?.hidden || this.#away) return;
    const link = this.#link;
    if (!link) {
      this.#attempt = 0;
      this.#after("retry", 0, () => this.#reconnect());
    } else if (link.open && link.send) {
      // It may be a connection of the network before: it has less time to answer now.
      this.#ping(link);
      const asked = link.pinged;
      this.#after(link, this.#options.openTimeout, () => {
        if (link.heard < asked) this.#lose(link, "nothing came since the network changed");
      });
    } else if (link.open) this.#refresh();
  }

  // -- WebSocket

  async #socket(link) {
    const url = await this.#address();
    if (link.gone) return;
    const socket = new this.#options.WebSocket(url.replace("http", "ws"), PROTOCOL);
    link.close = () => socket.close();
    socket.onopen = () => {
      if (link.gone) return;
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
    socket.onclose = ({ code, reason }) => {
      const text = `${code} ${reason}`.trim();
      if (link.gone) return;
      if (REFUSALS[code]) this.#refuse(link, REFUSALS[code]);
      else if (code === 1006) this.#doubt(link, text);
      // A server that says goodbye is no proxy that breaks something.
      else this.#lose(link, text, false);
    };
    // Node 22 says no more than that; elsewhere the close follows in the same turn.
    socket.onerror = () => link.gone || this.#after(link, 0, () => this.#doubt(link, "1006"));
  }

  #enterAll() {
    for (const channel of this.#channels.values()) this.#enter(channel);
  }

  /** Have the connection in use bring a topic too, or bring it anew. */
  #enter(channel) {
    const link = this.#link;
    const { since, told, watch } = channel;
    channel.live = false;
    if (!link?.send) {
      this.#refresh();
      if (watch && link?.open) this.#lookAround();
      return;
    }
    if (channel.entry) link.send(channel.ask("unsubscribe"));
    const id = (channel.entry = ++this.#id);
    const current = (act) => (value) => channel.entry === id && act(value);
    this.#sent.set(id, {
      again: true,
      resolve: current((answer) => channel.begin(answer, since)),
      reject: current((error) => {
        channel.entry = 0;
        this.#fail(channel, error, since);
        if (channel.subscriptions.size) this.#enter(channel);
      }),
    });
    const join = told && JSON.parse(told);
    link.send(channel.ask("subscribe", { id, since: since || undefined, join, watch: watch || undefined }));
  }

  #unsubscribe(channel, subscription) {
    const { told } = channel;
    if (!channel.subscriptions.delete(subscription)) return;
    if (channel.subscriptions.size) {
      if (channel.told !== told) this.#enter(channel);
    } else {
      this.#channels.delete(channel.key);
      const link = this.#link;
      if (link?.send) link.send(channel.ask("unsubscribe"));
      else this.#refresh();
      channel.entry = 0;
    }
    subscription.end(null);
  }

  /** End the subscriptions that an error is about: a cursor is of those that named it. */
  #fail(channel, error, since) {
    if (this.#channels.get(channel.key) !== channel) return;
    channel.end(error, error.code === "cursor" ? since : undefined);
    if (!channel.subscriptions.size) this.#channels.delete(channel.key);
  }

  /** End a connection: no subscription is live, and unanswered requests fail or are sent again. */
  #leave() {
    const error = new HubError("unanswered", "the connection broke before the answer: it may be done, or not");
    for (const channel of this.#channels.values()) {
      channel.live = false;
      channel.entry = 0;
    }
    for (const ask of this.#sent.values()) this.#settle(ask, ask.again ? null : error);
    this.#sent.clear();
  }

  /** Answer a call of the server. What goes wrong is for the console, unless it is a HubError, which is for the server. */
  async #answer(link, { call: name, number, data }) {
    let text;
    try {
      if (!this.oncall) throw new HubError("call", "the page has no oncall");
      text = JSON.stringify({ answer: number, data: await this.oncall({ name, data }) });
    } catch (error) {
      const { code, reason } = error instanceof HubError ? error : new HubError("failed");
      if (code === "failed") raise(error);
      text = JSON.stringify({ answer: number, error: code, reason });
    }
    if (!link.gone) link.send(text);
  }

  #hear(link, envelope) {
    const { id } = envelope;
    this.#opened(link);
    if (link.gone) return;
    if (envelope.call) return this.#answer(link, envelope);
    const ask = this.#sent.get(id);
    if (ask) {
      this.#sent.delete(id);
      this.#settle(ask, envelope.error && new HubError(envelope.error, envelope.reason), envelope);
      return;
    }
    if (envelope.expires) return this.#renew(link);
    const channel = this.#channels.get(keyOf(envelope));
    if (channel && envelope.error === "unsubscribed") {
      this.#fail(channel, new HubError(envelope.error, envelope.reason));
      return;
    }
    // Over a WebSocket, what comes before the answer is of an earlier subscription.
    if (channel && (channel.live || !link.send)) channel.take(envelope, link.asked.get(channel));
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
      const wanted = [...this.#channels.values()];
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

  async #fetch(control, link, wanted, fields = [], headers = {}) {
    link.asked = new Map(wanted.map((channel) => [channel, channel.since]));
    const begun = wanted.filter(({ since }) => since);
    const starts = begun.map(({ key, since }) => `${encodeURIComponent(key)}=${since}`);
    const topics = wanted.map(({ pattern, topic }) => [pattern ? "pattern" : "topic", topic]);
    const url = await this.#address([...topics, ["since", starts.join("&")], ...fields]);
    const { credentials } = this.#options;
    return fetch(url, { signal: control.signal, headers, credentials, cache: "no-store" });
  }

  async #stream(link, wanted, control) {
    const answer = await this.#fetch(control, link, wanted, [], { Accept: "text/event-stream" });
    if (!answer.ok) return this.#refused(link, answer, wanted, control);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) throw new HubError("ended", "the stream ended");
      link.heard = performance.now();
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
    // The first one is answered at once: so it is known to work, and what was subscribed to begins.
    const seconds = Math.min(25, Math.ceil(this.#options.pingInterval / 1000));
    const timeout = link.open && wanted.every(({ live }) => live) ? seconds : "0";
    const answer = await this.#fetch(control, link, wanted, [["timeout", timeout]]);
    if (!answer.ok) return this.#refused(link, answer, wanted, control);
    const found = answer.status === 204 ? null : await answer.json();
    if (control.signal.aborted) return;
    this.#opened(link);
    if (!link.gone && found) this.#takeAll(link, found);
  }

  /** Take what a poll brought. */
  #takeAll(link, { publications, cursor, recovered }) {
    for (const [channel, since] of link.asked) {
      const now = cursorOf(cursor, channel.key);
      const mine = publications.filter((publication) => keyOf(publication) === channel.key);
      const [epoch, offset] = now.split(":");
      // It is told of all topics together: of one, it is known if what came leads from one cursor to the other.
      const from = `${epoch}:${offset - mine.length}`;
      const known = recovered || [from, "earliest", ""].includes(since);
      if (!channel.live || !known) channel.begin({ cursor: known ? from : now, recovered: known }, since);
      for (const publication of mine) channel.take(publication);
    }
  }

  /** Find out what of a request was refused, and go on without it. */
  async #refused(link, answer, wanted, control) {
    const error = await errorOf(answer);
    if (this.#isRefusal(answer.status, error)) return this.#refuse(link, answer.status);
    if (!error) throw new HubError("http", `the answer has the status ${answer.status}`);
    const { asked } = link;
    let [last] = wanted.slice(-1);
    for (const channel of wanted.length > 1 ? wanted : []) {
      const alone = await this.#fetch(control, link, [channel], [["timeout", "0"]]);
      const why = alone.ok ? null : await errorOf(alone);
      if (why) {
        this.#fail(channel, why, asked.get(channel));
        last = null;
      }
    }
    // Each alone is allowed: they are too many.
    if (last) this.#fail(last, error, asked.get(last));
    this.#opened(link);
  }

  /** Ask who is there, for those who want to know: over HTTP nobody tells. */
  #lookAround() {
    for (const channel of this.#channels.values()) {
      if (channel.watch) {
        this.presence(channel.topic).then(
          (found) => channel.list(found),
          () => {}, // the next look is due soon
        );
      }
    }
    this.#after("presence", PRESENCE_INTERVAL, () => this.#lookAround());
  }

  // -- what is asked

  #ask(fields) {
    if (this.#end) return Promise.reject(this.#end);
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
      const reason = `the connection broke before the answer: it may be done, or not (${error})`;
      this.#settle(ask, new HubError("unanswered", reason));
    }
    this.#clear(control);
    this.#posting = null;
    this.#flush();
  }

  // -- timers and states

  #after(name, wait, act) {
    this.#clear(name);
    if (this.#end) return;
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

  #tell(state, transport, reason, status) {
    Object.assign(this, { state, transport });
    Emitter.emit(this, "state", { state, transport, reason, status });
  }
}

/** What the subscriptions to one topic, or by one pattern, share: what the connection brings of it. */
class Channel {
  subscriptions = new Set();
  watch = false;
  /** Whether the connection in use brings it, and by which request over a WebSocket. */
  live = false;
  entry = 0;
  /** Behind which publication the connection is. */
  cursor = "";
  members = new Map();
  users = new Map();
  count = 0;
  present = null;

  constructor(topic, key) {
    this.topic = topic;
    this.key = key;
    this.pattern = key !== topic || undefined;
  }

  /** Return what asks the server for something. */
  ask(action, fields) {
    return JSON.stringify({ [action]: this.topic, pattern: this.pattern, ...fields });
  }

  /** What is told of the page to others, as JSON. */
  get told() {
    return [...this.subscriptions].find(({ told }) => told)?.told;
  }

  /** The cursor that none of the subscriptions is before. */
  get since() {
    const cursors = [...this.subscriptions].map(({ cursor }) => cursor).filter(Boolean);
    if (cursors.includes("earliest")) return "earliest";
    return cursors.reduce((least, cursor) => (isBehind(least, cursor) ? least : cursor), cursors[0] ?? "");
  }

  /** Take the answer to a request since a cursor, or a new cursor. */
  begin({ cursor, recovered, present, members, count }, since) {
    const known = (ours) => !ours || since === "earliest" || !isBehind(ours, since);
    const was = this.live;
    this.live = true;
    this.cursor = cursor;
    this.present = present ?? null;
    for (const each of this.subscriptions) each.present = this.present;
    if (members) this.list({ members, count });
    for (const each of this.subscriptions) {
      each.begin(cursor, recovered ? was || known(each.cursor) : each.cursor === cursor);
    }
  }

  /** Have a subscription begin where the others are. */
  admit(subscription) {
    if (!this.live) return;
    subscription.begin(this.cursor, true);
    if (this.watch) this.#tell({});
  }

  /** Take what came. */
  take(envelope, since) {
    const { cursor, join, leave, recovered, error } = envelope;
    if (error) return; // it cannot be served for now: what is missed follows, or a cursor that says it is lost
    if (recovered !== undefined) this.begin(envelope, since);
    else if (!this.live) return;
    else if (join || leave) this.#move(join, leave);
    else {
      this.cursor = cursor || this.cursor;
      const publication = publicationOf(envelope);
      for (const each of this.subscriptions) each.take(publication);
    }
  }

  /** Be behind what the page published to all others, where that is next: else it would come after a break. */
  skip(cursor) {
    const [epoch, offset] = cursor.split(":");
    for (const each of [this, ...this.subscriptions]) if (each.cursor === `${epoch}:${offset - 1}`) each.cursor = cursor;
  }

  /** Take the list of who is present. */
  list({ members, count }) {
    this.members = new Map(members.map(({ id, info }) => [id, info]));
    this.users = new Map(members.map(({ id, user }) => [id, user]).filter(([, user]) => user));
    this.count = count;
    this.#tell({});
  }

  /** End all subscriptions, or those at a cursor. */
  end(error, cursor) {
    for (const each of this.subscriptions) {
      if (cursor === undefined || each.cursor === cursor) {
        this.subscriptions.delete(each);
        each.end(error);
      }
    }
  }

  #move(join, leave) {
    const { id, info, user } = join ?? leave;
    if (join ? !this.members.has(id) : true) this.count += join ? 1 : -1;
    if (leave) {
      this.members.delete(id);
      this.users.delete(id);
    } else if (this.members.size < LISTED || this.members.has(id)) {
      this.members.set(id, info);
      if (user) this.users.set(id, user);
    }
    this.#tell({ join, leave });
  }

  #tell(change) {
    const { members, count } = this;
    // By their names: whoever has two tabs is one.
    const users = new Map([...this.users].map(([id, user]) => [user, members.get(id)]));
    for (const each of this.subscriptions) {
      Object.assign(each, { members, users, count });
      Emitter.emit(each, "presence", { members, users, count, ...change });
    }
  }
}

class Subscription extends Emitter {
  #buffer = [];
  #limit;
  #wake = null;
  #ready;
  #heard = false; // somebody learns of its end
  #over = false;
  #error = null;
  #close;
  #settle;

  constructor(channel, cursor, told, limit, close) {
    // message: each publication; without it, they wait for `for await`.
    // gap: the new cursor where it is not known what was missed: get the state anew.
    // presence: {members, users, count} when somebody came or went; with `join` or `leave`, where it is known who.
    // error: when the server refuses the subscription, or ends it; then it is over.
    super("message", "gap", "presence", "error");
    // Behind which publication it is: `since` of one that goes on here, perhaps on another day.
    this.cursor = cursor;
    // Who is present, by id, the users among them by name, how many they are, and the own id among them.
    const { topic, members, count, present } = channel;
    Object.assign(this, { topic, told, members, users: new Map(), count, present });
    this.#limit = limit;
    this.#close = close;
    // Of {cursor, recovered}, when the server has accepted it for the first time.
    this.#ready = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#ready.catch(() => {}); // whoever waits for it is told all the same
  }

  /** End it. */
  close() {
    this.#close();
  }

  /** Kept when the server has accepted it. */
  get ready() {
    this.#heard = true;
    return this.#ready;
  }

  async *[Symbol.asyncIterator]() {
    this.#heard = true;
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

  // -- what its channel calls

  begin(cursor, recovered) {
    if (this.#over) return;
    // What another connection brought meanwhile counts.
    if (!recovered || isBehind(this.cursor, cursor)) this.cursor = cursor;
    this.#settle.resolve({ cursor, recovered });
    if (recovered) return;
    Emitter.emit(this, "gap", cursor);
    this.#put({ topic: this.topic, cursor, recovered });
  }

  take(publication) {
    const { cursor } = publication;
    if (this.#over || !isBehind(this.cursor, cursor)) return;
    this.cursor = cursor || this.cursor; // from a server that cannot reach the others for now, it has none
    if (!Emitter.emit(this, "message", publication)) this.#put(publication);
  }

  end(error) {
    if (this.#over) return;
    this.#over = true;
    this.#error ??= error;
    this.#settle.reject(error ?? new HubError("closed", "the subscription was closed"));
    this.#wake?.();
    // Where nobody hears of it, a page would wait for ever, and its author not know why.
    if (error && !Emitter.emit(this, "error", error) && !this.#heard) console.warn(`${this.topic}: ${error.message}`);
  }

  #put(item) {
    if (this.#error) return;
    if (this.#buffer.push(item) > this.#limit) {
      this.#buffer = [];
      this.#error = new HubError("slow", `over ${this.#limit} publications waited`);
    }
    this.#wake?.();
  }
}

// -- what both need

function drop(link) {
  link.gone = true;
  link.close();
}

/** Refuse names that there are not: a mistyped one would do nothing, silently. */
function check(what, names, known) {
  const allowed = known.join(", ") || "none";
  for (const name of names)
    if (!known.includes(name)) throw new TypeError(`there is no ${what} ${name}, allowed are ${allowed}`);
}

/** Call what a user gave; what it throws is for the console, and disturbs nobody else. */
function call(callback, value) {
  try {
    callback(value);
  } catch (error) {
    raise(error);
  }
}

function raise(error) {
  queueMicrotask(() => {
    throw error;
  });
}

/** Return what is known by the name of a topic, or a pattern, which has a NUL before it: no name of a topic has. */
function keyOf({ topic, pattern }) {
  return pattern === undefined ? topic : `\0${pattern}`;
}

/** Return the cursor for one topic out of a joined one, by its key. */
function cursorOf(since, key) {
  if (!since.includes("=")) return since;
  for (const part of since.split("&")) {
    const [name, cursor] = part.split("=");
    if (decodeURIComponent(name) === key) return cursor;
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

/** Return what an envelope says is published. */
function payloadOf(data) {
  if (typeof data === "string") return { data };
  if (ArrayBuffer.isView(data) || data instanceof ArrayBuffer) return { base64: toBase64(data) };
  // A Blob would be "{}".
  const text = data?.arrayBuffer ? undefined : JSON.stringify(data);
  if (text === undefined) throw new TypeError(`data is ${typeof data}, allowed are octets, and what JSON can say`);
  return { data: text, json: true };
}

/** Return what subscribers get of an envelope. */
function publicationOf({ topic, cursor, data = "", base64, json, event, user }) {
  if (base64 !== undefined) data = fromBase64(base64);
  try {
    if (json) data = JSON.parse(data);
  } catch {
    // Who publishes without a hub may say so of what is none: it stays the text.
  }
  return { topic, cursor, data, event, user };
}

function toBase64(data) {
  const octets = ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
  let text = "";
  // So many arguments at once: more overflow the stack.
  for (let at = 0; at < octets.length; at += 8192) text += String.fromCharCode(...octets.subarray(at, at + 8192));
  return btoa(text);
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
