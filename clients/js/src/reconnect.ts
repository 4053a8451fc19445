/** When a stream that lost its connection asks again, and when it gives up. */

import type { CauceError } from "./errors.js";

/**
 * Only reconnects that brought nothing new count: each new event begins the count again.
 *
 * The wait doubles from `baseMs` to `mostMs` and is shortened by chance, so that a thousand clients do not come back in the
 * same instant. A connection without a byte for `idleMs` is given up: the server sends one every ten seconds.
 */
export interface Reconnect {
  /** Tries in a row of a stream whose server was reached once. */
  attempts: number;
  /** Tries in a row of one whose server never was. */
  unreached: number;
  baseMs: number;
  mostMs: number;
  idleMs: number;
}

export const RECONNECT: Reconnect = { attempts: 8, unreached: 3, baseMs: 250, mostMs: 10_000, idleMs: 30_000 };

/** Milliseconds that a server may ask us to wait. Who asks for more gets the error told at once. */
export const MOST_WAIT = 60_000;

/** Statuses that may be another one soon. */
export const PASSING: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

/** Milliseconds to wait after so many failures in a row: from half of the step to the whole of it, or what the server said. */
export function delay(reconnect: Reconnect, failures: number, error: CauceError): number {
  const step = Math.min(reconnect.mostMs, reconnect.baseMs * 2 ** (failures - 1));
  return Math.max(step * (0.5 + 0.5 * Math.random()), 1000 * (error.retry_after ?? 0));
}

/** The connection is gone, and the stream may still be there. `error` is what is thrown when nobody tries again. */
export class Lost extends Error {
  readonly error: CauceError;

  constructor(error: CauceError) {
    super(error.message);
    this.error = error;
  }
}

/** The server does not know our place in the stream: what we have of it is no longer true. */
export class Rewritten extends Error {}

/** Return after that time, or when the browser says that it has a network again. Throws the reason of `signal`. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const over = (): void => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", woken);
      signal?.removeEventListener("abort", aborted);
    };
    const woken = (): void => {
      over();
      resolve();
    };
    const aborted = (): void => {
      over();
      reject(signal?.reason);
    };
    const timer = setTimeout(woken, ms);
    globalThis.addEventListener?.("online", woken);
    if (signal?.aborted) aborted();
    else signal?.addEventListener("abort", aborted);
  });
}
