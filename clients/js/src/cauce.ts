/** The client. */

import { type Answer, type Question, written } from "./body.js";
import { Connection, type Fetch, type Incoming, type OnDisconnect } from "./connection.js";
import { Unreachable, refused } from "./errors.js";
import { Lost, RECONNECT, type Reconnect } from "./reconnect.js";
import { AnswerStream, type ReadOptions, cancel } from "./stream.js";

export interface CauceOptions {
  /** Where the server is; `http://127.0.0.1:8000` unless you say otherwise. */
  baseUrl?: string;
  /** A key of Cauce, where Cauce has keys. */
  apiKey?: string;
  /** In place of the global `fetch`. */
  fetch?: Fetch;
  /** How streams find back to a server they lost. */
  reconnect?: Partial<Reconnect>;
}

export interface StreamOptions extends ReadOptions {
  /** The stream's id, by which it can be resumed from elsewhere; asking for it again attaches to it. */
  id?: string;
  /**
   * What the server does once nobody is connected to the stream; fixed when it begins. With `cancel` a connection that breaks
   * cancels it too.
   */
  onDisconnect?: OnDisconnect;
}

export interface ResumeOptions extends ReadOptions {
  /** The number of the last event you have; 0, the default, reads from the start. */
  after?: number;
  /** `epoch` of the stream that `after` came from. */
  epoch?: number | undefined;
}

/** Milliseconds that a plain answer may take: the server has bounds of its own, and `signal` is yours. */
const PLAIN_MS = 24 * 3600 * 1000;

export class Cauce {
  readonly #connection: Connection;
  readonly #reconnect: Reconnect;

  constructor(options: CauceOptions = {}) {
    const { baseUrl = "http://127.0.0.1:8000", apiKey, fetch, reconnect } = options;
    this.#connection = new Connection(baseUrl, apiKey, fetch);
    this.#reconnect = { ...RECONNECT, ...reconnect };
  }

  /** The whole answer. Throws `CallFailed` and `Unreachable`, and the reason of `signal`. */
  async message(question: Question, options: { signal?: AbortSignal } = {}): Promise<Answer> {
    let incoming: Incoming | undefined;
    try {
      const asking = { method: "POST", path: "/llm/message", body: written(question), idleMs: PLAIN_MS } as const;
      incoming = await this.#connection.send({ ...asking, signal: options.signal });
      const text = await incoming.text();
      if (!incoming.response.ok) throw refused(incoming.response, text);
      return answer(text);
    } catch (error) {
      throw error instanceof Lost ? error.error : error;
    } finally {
      incoming?.close();
    }
  }

  /**
   * The answer as it comes, whatever happens to the connection. Nothing is sent before it is iterated or `result` is asked for.
   *
   * To leave it before its end (`break`, `signal`) cancels it if its id was made here; a stream with an id of yours goes on.
   * With `onDisconnect` that is what decides.
   */
  stream(question: Question, options: StreamOptions = {}): AnswerStream {
    const { id, onDisconnect, ...rest } = options;
    // A stream that is to outlive its readers is not cancelled by leaving it.
    const ours = id === undefined && (onDisconnect === undefined || onDisconnect === "cancel");
    const asked = { id: id ?? madeId(), body: written(question), onDisconnect, after: 0, ours };
    return new AnswerStream(this.#connection, this.#reconnect, asked, rest);
  }

  /** The stream `id`, which was begun elsewhere, such as before the page was loaded again. Leaving it does not cancel it. */
  resume(id: string, options: ResumeOptions = {}): AnswerStream {
    const { after = 0, epoch, ...rest } = options;
    return new AnswerStream(this.#connection, this.#reconnect, { id, after, epoch, ours: false }, rest);
  }

  /** Stop the stream `id`, whoever reads it. That it is unknown or over is no error. */
  async cancel(id: string): Promise<void> {
    await cancel(this.#connection, this.#reconnect, id);
  }
}

function answer(text: string): Answer {
  let told: unknown;
  try {
    told = JSON.parse(text);
  } catch (cause) {
    throw new Unreachable("what answered is no Cauce; check baseUrl", {}, { cause });
  }
  if (typeof (told as Answer | null)?.response !== "string") {
    throw new Unreachable("what answered is no Cauce; check baseUrl");
  }
  return told as Answer;
}

/** 128 random bits. `crypto.randomUUID` is missing on pages without TLS, and `crypto` in old versions of Node. */
function madeId(): string {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto === undefined) bytes.forEach((_, place) => (bytes[place] = Math.floor(Math.random() * 256)));
  else globalThis.crypto.getRandomValues(bytes);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
