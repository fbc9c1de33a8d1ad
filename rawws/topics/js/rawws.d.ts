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
  /** The rest is in milliseconds. */
  openTimeout?: number;
  pingInterval?: number;
  stableAfter?: number;
  betterAfter?: number;
  retryBase?: number;
  retryCap?: number;
}

export type State =
  | { state: "connecting"; transport: null; reason: string }
  | { state: "open"; transport: Transport; reason: "" }
  | { state: "closed"; transport: null; reason: "" };

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
}

export interface Presence {
  members: ReadonlyMap<string, Json>;
  count: number;
  join?: Member;
  leave?: Member;
}

/** `code` is one of docs/use/rawws.v1.md, or "closed", "queue", "unanswered", "slow", "http". */
export class HubError extends Error {
  constructor(code: string, reason?: string);
  readonly code: string;
  readonly reason: string;
}

export function connect(url: string | URL, options?: Options): Hub;

export interface Hub {
  onstate: ((state: State) => void) | null;
  readonly state: State["state"];
  readonly transport: Transport | null;
  subscribe(topic: string, options?: { since?: string; join?: Json; watch?: boolean }): Subscription;
  publish(topic: string, data: string | ArrayBuffer | ArrayBufferView, options?: { key?: string }): Promise<string>;
  presence(topic: string): Promise<{ members: Member[]; count: number }>;
  close(): void;
}

export interface Subscription extends AsyncIterable<Publication | Gap> {
  readonly topic: string;
  /** The `since` of a subscription that goes on here. */
  readonly cursor: string;
  /** Settled when the server has answered for the first time. */
  readonly ready: Promise<{ cursor: string; recovered: boolean }>;
  readonly members: ReadonlyMap<string, Json>;
  readonly count: number;
  /** The own id among the members. */
  readonly present: string | null;
  onmessage: ((publication: Publication) => void) | null;
  ongap: ((cursor: string) => void) | null;
  onpresence: ((presence: Presence) => void) | null;
  onerror: ((error: HubError) => void) | null;
  close(): void;
}
