/** Types of rawws.js (docs/use/javascript.md). */

export type Transport = "websocket" | "stream" | "poll";

export interface Options {
  /** Which there are, best first. */
  transports?: readonly Transport[];
  /** What authorize finds as ?token=; a function is asked at each connection. */
  token?: string | (() => string | Promise<string>);
  /** Of fetch: "include" sends cookies to another origin. */
  credentials?: RequestCredentials;
  /** Requests that may wait for their answer, and their size in characters. */
  queue?: number;
  queueSize?: number;
  /** Publications that may wait for `for await`. */
  buffer?: number;
  /** Where there is no global one (Node 20): that of the package ws. */
  WebSocket?: new (url: string, protocol: string) => SocketLike;
  /** The rest is in milliseconds. */
  openTimeout?: number;
  pingInterval?: number;
  stableAfter?: number;
  betterAfter?: number;
  retryBase?: number;
  retryCap?: number;
}

/** What is used of a WebSocket. */
export interface SocketLike {
  send(data: string): void;
  close(): void;
}

/** What a server answers that lets nobody in: also 404, where there never was a hub. */
export interface Refusal {
  status: number;
  reason: string;
}

export type State =
  | { state: "connecting"; transport: null; reason: string; status?: number }
  | { state: "open"; transport: Transport; reason: ""; status?: undefined }
  | { state: "refused"; transport: null; reason: string; status: number }
  | { state: "closed"; transport: null; reason: string; status?: undefined };

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

export interface Publication<Data = any> {
  /** The name of the topic, also where it came by a pattern. */
  topic: string;
  cursor: string;
  /** A string or a Uint8Array, as it was published, or the value of JSON. */
  data: Data;
  /** The name of the event that it is. */
  event?: string;
  /** Who published it, where the server knows that. */
  user?: string;
  recovered?: undefined;
}

/** Stands among publications where it is not known what was missed. */
export interface Gap {
  topic: string;
  cursor: string;
  data?: undefined;
  recovered: false;
}

export interface Member {
  id: string;
  info: Json;
  /** Who it is, as the server knows; then `info` is the server's too, and `claim` what the page says of itself. */
  user?: string;
  claim?: Json;
  /** `info` is what the page says of itself. */
  claimed?: true;
}

export interface Presence {
  members: ReadonlyMap<string, Json>;
  users: ReadonlyMap<string, Json>;
  count: number;
  join?: Member;
  leave?: Member;
}

/** `code` is one of docs/use/rawws.v1.md, "refused" for the whole hub too, or "closed", "queue", "unanswered", "slow",
 * "http". */
export class HubError extends Error {
  constructor(code: string, reason?: string);
  readonly code: string;
  readonly reason: string;
}

export function connect(url: string | URL, options?: Options): Hub;

/** Each event has a property for one function, and listeners, which get the same. */
export interface Emitter<Events> {
  addEventListener<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): void;
  removeEventListener<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): void;
}

export interface TopicOptions {
  since?: string;
  /** What others get of the page: any JSON. */
  join?: object | string | number | boolean | null;
  watch?: boolean;
  /** The topic is the beginning of names and a `*`: "news/*" is for all topics that begin with "news/". */
  pattern?: boolean;
}

export interface PublishOptions {
  /** What it is about: for slow subscribers, the hub may keep only the latest of each key. */
  key?: string;
  /** The name of an event. */
  event?: string;
  /** Not to this page: it needs a WebSocket. */
  exclude?: boolean;
}

export interface History {
  publications: Publication[];
  /** Where to go on: the next `before`, or the next `since`. */
  cursor: string;
  recovered: boolean;
}

export interface Hub extends Emitter<{ state: State }> {
  onstate: ((state: State) => void) | null;
  /** Asked once for a new token when the server lets nobody in, where nothing ends the hub; and before one expires. */
  ontoken: ((refusal: Refusal) => string | null | undefined | Promise<string | null | undefined>) | null;
  readonly state: State["state"];
  readonly transport: Transport | null;
  subscribe<Data = any>(topic: string, options?: TopicOptions): Subscription<Data>;
  /** Asked for the answer when the server calls the page; a HubError that it throws is for the server. */
  oncall: ((call: { name: string; data: Json }) => unknown) | null;
  /** Publish a string, an ArrayBuffer or a view of one, or JSON. */
  publish(topic: string, data: object | string | number | boolean | null, options?: PublishOptions): Promise<string>;
  history(topic: string, options?: { limit?: number; before?: string; since?: string }): Promise<History>;
  /** Call a function of the server with JSON. */
  call(name: string, data?: object | string | number | boolean | null): Promise<Json>;
  presence(topic: string): Promise<{ members: Member[]; count: number }>;
  close(): void;
}

export interface SubscriptionEvents<Data = any> {
  message: Publication<Data>;
  gap: string;
  presence: Presence;
  error: HubError;
}

export interface Subscription<Data = any>
  extends AsyncIterable<Publication<Data> | Gap>, Emitter<SubscriptionEvents<Data>> {
  readonly topic: string;
  /** The `since` of a subscription that goes on here. */
  readonly cursor: string;
  /** Settled when the server has answered for the first time. */
  readonly ready: Promise<{ cursor: string; recovered: boolean }>;
  readonly members: ReadonlyMap<string, Json>;
  /** The users that the server knows, by name: whoever has two tabs is one. */
  readonly users: ReadonlyMap<string, Json>;
  readonly count: number;
  /** The own id among the members. */
  readonly present: string | null;
  onmessage: ((publication: Publication<Data>) => void) | null;
  ongap: ((cursor: string) => void) | null;
  onpresence: ((presence: Presence) => void) | null;
  onerror: ((error: HubError) => void) | null;
  close(): void;
}
