/** What has come of an answer so far: a fold over events, without anything of connections. */

import type { AttemptMade, CostSource, FinishReason, Level, ToolCall, Usage } from "./body.js";
import type { CancelledEvent, CompleteEvent, ErrorEvent, StreamEvent } from "./events.js";

/** A whole answer. `cost` is in USD. */
export interface Result {
  id: string;
  request_id: string | undefined;
  outcome: "completed" | "cancelled";
  text: string;
  thinking: string;
  tool_calls: ToolCall[];
  finish_reason: FinishReason;
  model: string | null;
  level: Level | null;
  usage: Usage | null;
  cost: number | undefined;
  cost_source: CostSource | undefined;
  attempts: AttemptMade[];
  /** The value of `text`, where JSON was asked for. */
  parsed: unknown;
}

export class Transcript {
  /** The stream is read from its first record on, so that the pieces together are the text. */
  readonly #whole: boolean;
  #text = "";
  #thinking = "";
  /** Where each piece of text begins. */
  #places: { seq: number; at: number }[] = [];
  #calls: { seq: number; call: ToolCall }[] = [];
  #end: CompleteEvent | CancelledEvent | ErrorEvent | undefined;
  partial: unknown;

  constructor(whole: boolean) {
    this.#whole = whole;
  }

  /** The last event, once it is there. */
  get end(): CompleteEvent | CancelledEvent | ErrorEvent | undefined {
    return this.#end;
  }

  /** The text so far. Of a stream that is read on, only what has come here, until its end brings the whole. */
  get text(): string {
    if (this.#whole || this.#end === undefined) return this.#text;
    return this.#end.type === "error" ? this.#end.partial : this.#end.text;
  }

  get thinking(): string {
    return this.#thinking;
  }

  feed(event: StreamEvent): void {
    switch (event.type) {
      case "text":
        this.#places.push({ seq: event.seq, at: this.#text.length });
        this.#text += event.text;
        if (event.partial !== undefined) this.partial = event.partial;
        break;
      case "thinking":
        this.#thinking += event.text;
        break;
      case "tool_call": {
        const { call_id, name, arguments: given, mark, seq } = event;
        if (mark === "ready") this.#calls.push({ seq, call: { call_id, name, arguments: given } });
        if (mark === "abandoned") this.#calls = this.#calls.filter((one) => one.call.call_id !== call_id);
        break;
      }
      case "restart":
        this.#restart(event.from_seq);
        break;
      case "complete":
        this.partial = event.parsed ?? this.partial;
        this.#end = event;
        break;
      case "cancelled":
      case "error":
        this.#end = event;
        break;
    }
  }

  #restart(from: number): void {
    const first = this.#places.findIndex((place) => place.seq >= from);
    if (first >= 0) {
      this.#text = this.#text.slice(0, this.#places[first]?.at);
      this.#places.length = first;
    }
    this.#calls = this.#calls.filter((one) => one.seq < from);
    this.partial = undefined;
  }

  /** The whole of an answer that ended with `end`. */
  result(id: string, request_id: string | undefined, end: CompleteEvent | CancelledEvent): Result {
    const done = end.type === "complete" ? end : undefined;
    return {
      id,
      request_id,
      outcome: done === undefined ? "cancelled" : "completed",
      text: this.text,
      thinking: this.#thinking,
      tool_calls: this.#calls.map((one) => one.call),
      finish_reason: done?.finish_reason ?? "cancelled",
      model: done?.model ?? null,
      level: done?.level ?? null,
      usage: end.usage,
      cost: done?.cost,
      cost_source: done?.cost_source,
      attempts: done?.attempts ?? [],
      parsed: done?.parsed,
    };
  }
}
