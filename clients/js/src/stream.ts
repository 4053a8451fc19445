/**
 * A stream that outlives its connections: read on wherever one breaks, each event handed out once.
 *
 *     POST /chat/stream/{id}                 until the first frame has come: the id makes it safe to ask again
 *     GET  /chat/stream/{id}/resume?after=N  from then on, and for a stream that was begun elsewhere
 *     DELETE /chat/stream/{id}               cancel
 *
 * | answer | meaning |
 * |---|---|
 * | 200 | frames follow; a body that ends before the last frame is a broken connection |
 * | 204 | everything has been read |
 * | 408, 425, 429, 500, 502, 503, 504 | ask again, after `Retry-After` if there is one |
 * | 409 with a `tail` | the server lost what we have: a `restart` from record 1, and read from the start |
 * | any other | an error, at once |
 */

import type { Connection, Incoming, OnDisconnect } from "./connection.js";
import { CallFailed, Unreachable, refused } from "./errors.js";
import { type Frame, type StatusEvent, type StreamEvent, eventOf } from "./events.js";
import { type Progress, progressOf } from "./progress.js";
import { Lost, MOST_WAIT, PASSING, type Reconnect, Rewritten, delay, pause } from "./reconnect.js";
import { SSEParser } from "./sse.js";
import { type Result, Transcript } from "./transcript.js";

/** Milliseconds that a server has for its answer to a cancel; it waits up to two seconds for the stream's end. */
const CANCEL_MS = 5_000;

/** What can be said of any stream. `signal` leaves it, as `break` does. */
export interface ReadOptions {
  signal?: AbortSignal;
  /** Called with each change of `stream.progress`. */
  onProgress?: (progress: Progress) => void;
  /** Called with each `status` event, before it is handed out. */
  onStatus?: (status: StatusEvent) => void;
  /** Called with each event, before it is handed out. */
  onEvent?: (event: StreamEvent) => void;
}

/** Which stream, from where on. Without a `body` it is only read. `ours`: leaving it is to cancel it, since nobody else can know the id. */
export interface Asked {
  id: string;
  body?: string;
  onDisconnect?: OnDisconnect | undefined;
  after: number;
  epoch?: number | undefined;
  ours: boolean;
}

export class AnswerStream implements AsyncIterable<StreamEvent> {
  /** By which the stream can be resumed. */
  readonly id: string;
  readonly #connection: Connection;
  readonly #reconnect: Reconnect;
  readonly #asked: Asked;
  readonly #options: ReadOptions;
  readonly #settled: Promise<Result>;
  #resolve!: (result: Result) => void;
  #reject!: (error: unknown) => void;
  #taken = false;
  #progress: Progress = { phase: "connecting" };
  #requestId: string | undefined;
  /** The last record read, and the last one handed out. */
  #read: number;
  #given: number;
  #epoch: number | undefined;
  #failures = 0;
  #sent = false;
  #reached = false;
  #cancelled = false;
  #lookedBack = false;
  #transcript: Transcript;

  constructor(connection: Connection, reconnect: Reconnect, asked: Asked, options: ReadOptions) {
    this.id = asked.id;
    this.#connection = connection;
    this.#reconnect = reconnect;
    this.#asked = asked;
    this.#options = options;
    this.#read = this.#given = asked.after;
    this.#epoch = asked.epoch;
    this.#transcript = new Transcript(asked.after === 0);
    this.#settled = new Promise<Result>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever iterates is told by the iteration.
    this.#settled.catch(() => undefined);
  }

  /** The text so far. */
  get text(): string {
    return this.#transcript.text;
  }

  /** What the model has thought so far, as far as its provider shows it. */
  get thinking(): string {
    return this.#transcript.thinking;
  }

  /** The object so far, where JSON was asked for. */
  get partial(): unknown {
    return this.#transcript.partial;
  }

  /** Where the stream stands. */
  get progress(): Progress {
    return this.#progress;
  }

  /** The number of the last event handed out: with `id` and `epoch`, what another page needs to read on. */
  get cursor(): number {
    return this.#given;
  }

  /** Which writing of the stream `cursor` belongs to. */
  get epoch(): number | undefined {
    return this.#epoch;
  }

  /** The id that the log of the server names. */
  get requestId(): string | undefined {
    return this.#requestId;
  }

  /** The whole answer, once it is there. Reads the stream if nobody iterates over it. Rejects as the iteration throws. */
  get result(): Promise<Result> {
    if (!this.#taken) void this.#consume();
    return this.#settled;
  }

  [Symbol.asyncIterator](): AsyncGenerator<StreamEvent, void, undefined> {
    if (this.#taken) throw new TypeError("a stream is read once: client.resume(id) reads it again");
    this.#taken = true;
    return this.#events();
  }

  /**
   * Stop the model. The stream then ends with `cancelled`, unless it ended before.
   *
   * It may overtake its own start, and be called again. Throws `CallFailed` and `Unreachable` if it was not heard: then nothing
   * has changed.
   */
  async cancel(): Promise<void> {
    this.#cancelled = true;
    try {
      await cancel(this.#connection, this.#reconnect, this.id);
    } catch (error) {
      this.#cancelled = false;
      throw error;
    }
  }

  async #consume(): Promise<void> {
    try {
      for await (const _ of this);
    } catch {
      // `result` tells.
    }
  }

  async *#events(): AsyncGenerator<StreamEvent, void, undefined> {
    let failure: unknown;
    try {
      yield* this.#connections();
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      const end = this.#transcript.end;
      if (end === undefined) {
        this.#reject(failure ?? new Unreachable("the stream was left before its end"));
        const left = this.#leave();
        // Whoever gave a signal waits for nobody.
        if (!this.#options.signal?.aborted) await left;
      } else if (end.type === "error") {
        this.#reject(this.#failed(end));
      } else {
        this.#resolve(this.#transcript.result(this.id, this.#requestId, end));
      }
    }
  }

  /** Connection after connection, to the end. */
  async *#connections(): AsyncGenerator<StreamEvent, void, undefined> {
    while (this.#transcript.end === undefined) {
      if (this.#stillborn) {
        // Nothing was seen, and the server was told: it is not asked again.
        yield this.#hand({ type: "cancelled", seq: 0, text: "", usage: null, reason: "cancelled" });
        return;
      }
      try {
        const incoming = await this.#open();
        if (incoming !== undefined) yield* this.#frames(incoming);
      } catch (error) {
        if (error instanceof Lost) await this.#wait(error);
        else if (error instanceof Rewritten) yield this.#beginAgain(error.message);
        else throw error;
      }
    }
    const end = this.#transcript.end;
    if (end.type === "error" && !this.#lookedBack) throw this.#failed(end);
  }

  /** The events of one connection. */
  async *#frames(incoming: Incoming): AsyncGenerator<StreamEvent, void, undefined> {
    const parser = new SSEParser();
    try {
      for (let bytes = await incoming.read(); bytes !== undefined; bytes = await incoming.read()) {
        for (const frame of framesOf(parser, bytes)) {
          const event = this.#take(frame);
          if (event !== undefined) yield event;
          if (this.#transcript.end !== undefined) return await incoming.rest();
        }
      }
    } finally {
      incoming.close();
    }
    throw new Lost(new Unreachable("the stream ended without its last frame: it was cut off"));
  }

  /** Frames; undefined when there is nothing to read any more. */
  async #open(): Promise<Incoming | undefined> {
    const starting = !this.#reached && this.#asked.body !== undefined;
    const path = pathOf(this.id);
    const epoch = this.#epoch !== undefined && this.#read > 0 ? `&epoch=${this.#epoch}` : "";
    const { signal } = this.#options;
    if (signal?.aborted) throw signal.reason;
    this.#tell({ phase: "connecting" });
    this.#sent = true;
    const incoming = await this.#connection.send({
      method: starting ? "POST" : "GET",
      path: starting ? path : `${path}/resume?after=${this.#read}${epoch}`,
      body: starting ? this.#asked.body : undefined,
      onDisconnect: this.#asked.onDisconnect,
      idleMs: this.#reconnect.idleMs,
      signal,
    });
    const { response } = incoming;
    this.#requestId ??= response.headers.get("x-cauce-request-id") ?? undefined;
    if (response.status === 200) {
      this.#tell({ phase: "open" });
      return incoming;
    }
    try {
      if (response.status !== 204) throw this.#refused(response, await incoming.text());
      this.#lookBack();
      return undefined;
    } finally {
      incoming.close();
    }
  }

  #refused(response: Response, text: string): Error {
    const error = refused(response, text);
    // If this is the server's first word, no stream was begun: there is none to cancel.
    if (error instanceof CallFailed && !this.#reached && this.#failures === 0) this.#sent = false;
    if (PASSING.has(response.status)) return new Lost(error);
    if (response.status === 409 && "tail" in error.facts && this.#read > 0) return new Rewritten(error.message);
    return error;
  }

  /** Take the frame in; the event, if it is to be handed out. Throws `Lost` for a frame that does not follow. */
  #take(frame: Frame): StreamEvent | undefined {
    const { seq } = frame;
    // The opening of a resumed stream has no number; what has been read is not read again.
    if (seq === undefined || seq <= this.#read) return undefined;
    if (seq !== this.#read + 1) throw new Lost(new Unreachable(`the stream jumped from record ${this.#read} to ${seq}`));
    const event = eventOf({ ...frame, seq });
    this.#read = seq;
    this.#epoch = frame.epoch ?? this.#epoch;
    this.#failures = 0;
    this.#reached = true;
    if (seq > this.#given) {
      this.#given = seq;
      return this.#hand(event);
    }
    // Only looked up again: whoever reads has had it, and has been told.
    this.#lookedBack = true;
    this.#transcript.feed(event);
    return undefined;
  }

  #hand(event: StreamEvent): StreamEvent {
    this.#transcript.feed(event);
    const progress = progressOf(event);
    if (progress !== undefined) this.#tell(progress);
    if (event.type === "status") this.#options.onStatus?.(event);
    this.#options.onEvent?.(event);
    return event;
  }

  /** Everything was read, before this object was made: read the last frame once more, for `result`, and hand out none. */
  #lookBack(): void {
    this.#failures += 1;
    if (this.#failures > 1 || this.#read === 0) {
      throw new Unreachable("the server says that the stream is over, and does not show its end");
    }
    this.#reached = true;
    this.#read -= 1;
  }

  #beginAgain(reason: string): StreamEvent {
    this.#failures += 1;
    this.#reached = true;
    this.#read = this.#given = 0;
    this.#epoch = undefined;
    this.#transcript = new Transcript(true);
    return this.#hand({ type: "restart", seq: 0, from_seq: 1, reason });
  }

  /** Return when it is time to ask again. Throws the error of `lost` when it is not worth it. */
  async #wait(lost: Lost): Promise<void> {
    if (this.#stillborn) return;
    this.#failures += 1;
    const { attempts, unreached } = this.#reconnect;
    const waitMs = delay(this.#reconnect, this.#failures, lost.error);
    const most = this.#reached ? attempts : Math.min(attempts, unreached);
    if (this.#failures > most || waitMs > MOST_WAIT) throw lost.error;
    this.#tell({ phase: "reconnecting", attempt: this.#failures, waitMs, reason: lost.message });
    await pause(waitMs, this.#options.signal);
  }

  /** Cancelled before anything of it was seen: whatever is asked for now, the server must not begin it. */
  get #stillborn(): boolean {
    return this.#cancelled && !this.#reached && this.#asked.body !== undefined;
  }

  /** Who leaves a stream whose id nobody else has will not come back to it. */
  async #leave(): Promise<void> {
    if (!this.#asked.ours || !this.#sent || this.#cancelled) return;
    this.#cancelled = true;
    // If it is not heard, the server finds out that nobody reads.
    await remove(this.#connection, this.id).catch(() => undefined);
  }

  #failed(end: { message: string; error_code: string; retry_after?: number }): CallFailed {
    const { error_code, retry_after } = end;
    return new CallFailed(end.message, { error_code, retry_after, request_id: this.#requestId });
  }

  #tell(progress: Progress): void {
    // The first is told too, though it is what a stream begins as.
    const known = progress === this.#progress || JSON.stringify(progress) === JSON.stringify(this.#progress);
    if (known && this.#sent) return;
    this.#progress = progress;
    this.#options.onProgress?.(progress);
  }
}

/** Cancel the stream `id`, as often as it takes to be heard. That it is unknown or over is no error. */
export async function cancel(connection: Connection, reconnect: Reconnect, id: string): Promise<void> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await remove(connection, id);
    } catch (error) {
      if (!(error instanceof Lost)) throw error;
      const waitMs = delay(reconnect, failures, error.error);
      if (failures > reconnect.unreached || waitMs > MOST_WAIT) throw error.error;
      await pause(waitMs);
    }
  }
}

async function remove(connection: Connection, id: string): Promise<void> {
  const incoming = await connection.send({ method: "DELETE", path: pathOf(id), idleMs: CANCEL_MS });
  const { response } = incoming;
  const text = await incoming.text();
  if (response.ok || response.status === 404 || response.status === 410) return;
  const error = refused(response, text);
  throw PASSING.has(response.status) ? new Lost(error) : error;
}

function pathOf(id: string): string {
  return `/chat/stream/${encodeURIComponent(id)}`;
}

function frameOf(data: string): Frame {
  const told: unknown = JSON.parse(data);
  if (typeof told !== "object" || told === null) throw new TypeError(`${data} is no frame`);
  return told as Frame;
}

/** Throws `Lost` for what is no frame. */
function framesOf(parser: SSEParser, bytes: Uint8Array): Frame[] {
  try {
    return parser.feed(bytes).map(frameOf);
  } catch (cause) {
    throw new Lost(new Unreachable("the server sent what is no frame", {}, { cause }));
  }
}

