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

export interface Publication {
  topic: string;
  cursor: string;
  /** Text or octets, as it was published. */
  data: string | Uint8Array;
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
}

export interface Hub extends Emitter<{ state: State }> {
  onstate: ((state: State) => void) | null;
  /** Asked once for a new token when the server lets nobody in, where nothing ends the hub; and before one expires. */
  ontoken: ((refusal: Refusal) => string | null | undefined | Promise<string | null | undefined>) | null;
  readonly state: State["state"];
  readonly transport: Transport | null;
  subscribe(topic: string, options?: TopicOptions): Subscription;
  publish(topic: string, data: string | ArrayBuffer | ArrayBufferView, options?: { key?: string }): Promise<string>;
  presence(topic: string): Promise<{ members: Member[]; count: number }>;
  close(): void;
}

export interface SubscriptionEvents {
  message: Publication;
  gap: string;
  presence: Presence;
  error: HubError;
}

export interface Subscription extends AsyncIterable<Publication | Gap>, Emitter<SubscriptionEvents> {
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
  onmessage: ((publication: Publication) => void) | null;
  ongap: ((cursor: string) => void) | null;
  onpresence: ((presence: Presence) => void) | null;
  onerror: ((error: HubError) => void) | null;
  close(): void;
}
