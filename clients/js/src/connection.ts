/** A server's address and the key to it; one request at a time, watched for silence. */

import { Unreachable } from "./errors.js";
import { Lost } from "./reconnect.js";

export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

/** What becomes of a stream that nobody reads any more; `grace:120` cancels it when nobody has come back for 120 seconds. */
export type OnDisconnect = "continue" | "cancel" | "grace" | `grace:${number}`;

const LAST_BYTES_MS = 100;

/** An answer whose body is read piece by piece. Each wait for a byte has a bound; `close` leaves. */
export class Incoming {
  readonly response: Response;
  readonly #watch: Watch;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;

  constructor(response: Response, watch: Watch) {
    this.response = response;
    this.#watch = watch;
  }

  /** The next bytes; undefined at the end. Throws `Lost` when the connection breaks or is silent for too long. */
  async read(): Promise<Uint8Array | undefined> {
    this.#reader ??= this.response.body?.getReader();
    if (this.#reader === undefined) return undefined;
    const reader = this.#reader;
    const { done, value } = await this.#watch.over(() => reader.read());
    return done ? undefined : value;
  }

  /** The whole body. Throws as `read` does. */
  async text(): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    for (let bytes = await this.read(); bytes !== undefined; bytes = await this.read()) text += decoder.decode(bytes, { stream: true });
    return text + decoder.decode();
  }

  /** Nothing more is wanted, and the body is about to end: keep the connection if it does so at once. */
  async rest(): Promise<void> {
    const timer = setTimeout(() => this.close(), LAST_BYTES_MS);
    try {
      while ((await this.read()) !== undefined);
    } catch {
      // All that was wanted has come.
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#watch.end();
  }
}

/** Ends what it watches after `idleMs` of waiting, or when `signal` says so. */
class Watch {
  readonly #controller = new AbortController();
  readonly #idleMs: number;
  readonly #signal: AbortSignal | undefined;
  readonly #aborted = (): void => this.#controller.abort(this.#signal?.reason);

  constructor(idleMs: number, signal: AbortSignal | undefined) {
    this.#idleMs = idleMs;
    this.#signal = signal;
    if (signal?.aborted) this.#aborted();
    else signal?.addEventListener("abort", this.#aborted, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Throws `Lost` in place of what broke, and the reason of the caller's signal when that ended it. */
  async over<T>(work: () => Promise<T>): Promise<T> {
    let silent = false;
    const timer = setTimeout(() => {
      silent = true;
      this.#controller.abort();
    }, this.#idleMs);
    try {
      return await work();
    } catch (error) {
      this.end();
      if (this.#signal?.aborted) throw this.#signal.reason;
      const why = silent ? `the server was silent for ${this.#idleMs / 1000} s` : `the connection broke: ${reason(error)}`;
      throw new Lost(new Unreachable(why, {}, { cause: error }));
    } finally {
      clearTimeout(timer);
    }
  }

  end(): void {
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#controller.abort();
  }
}

export class Connection {
  readonly #base: string;
  readonly #headers: Record<string, string>;
  readonly #fetch: Fetch;

  constructor(baseUrl: string, apiKey: string | undefined, fetch: Fetch | undefined) {
    this.#base = baseUrl.replace(/\/+$/, "");
    this.#headers = apiKey === undefined ? {} : { Authorization: `Bearer ${apiKey}` };
    // Called without an object in front: a browser's fetch wants to be the window's.
    this.#fetch = fetch ?? ((input, init) => globalThis.fetch(input, init));
  }

  /** The answer, whatever its status. Throws `Lost`, and the reason of `signal`. */
  async send(request: Asking): Promise<Incoming> {
    const { method, path, body, onDisconnect, idleMs, signal } = request;
    const watch = new Watch(idleMs, signal);
    const headers: Record<string, string> = { ...this.#headers };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      // Of a stream we can take back what was shown.
      headers["X-Cauce-Restart"] = "accept";
      if (onDisconnect !== undefined) headers["X-Cauce-On-Disconnect"] = onDisconnect;
    }
    const init: RequestInit = { method, headers, cache: "no-store", signal: watch.signal };
    if (body !== undefined) init.body = body;
    return new Incoming(await watch.over(() => this.#fetch(this.#base + path, init)), watch);
  }
}

/** A request. Without a `body` its headers are such that a browser asks nobody's leave first, unless there is a key. */
export interface Asking {
  method: "GET" | "POST" | "DELETE";
  path: string;
  body?: string | undefined;
  onDisconnect?: OnDisconnect | undefined;
  idleMs: number;
  signal?: AbortSignal | undefined;
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node puts what happened into the cause of "fetch failed".
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
