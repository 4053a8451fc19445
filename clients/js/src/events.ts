/** What a stream tells, typed, and how it is read from frames. Fields keep the server's own names. */

import type { AttemptMade, CostSource, FinishReason, Level, ToolCall, Usage } from "./body.js";
import type { ErrorCode } from "./errors.js";

/** `seq` is the number of the record: 1, 2, 3… without holes. */
interface Numbered {
  seq: number;
}

export interface StartEvent extends Numbered {
  type: "start";
  model: string;
  /** UNIX time in seconds. */
  created: number;
}

/** A piece of the text. `partial` is the object so far, now and then, where JSON was asked for. */
export interface TextEvent extends Numbered {
  type: "text";
  text: string;
  refusal?: true;
  partial?: unknown;
}

export interface ThinkingEvent extends Numbered {
  type: "thinking";
  text: string;
}

/** `piece` carries a part of the arguments, `ready` the whole; `abandoned`: the model that wanted it broke. */
export interface ToolCallEvent extends Numbered, ToolCall {
  type: "tool_call";
  mark: "piece" | "ready" | "abandoned";
}

export interface ToolResultEvent extends Numbered {
  type: "tool_result";
  call_id: string;
  name: string;
  content: string;
  error?: string;
}

/** What goes on: `message` is for people, `status` (such as `waiting`, `citation`, `seam`) and `facts` for programs. */
export interface StatusEvent extends Numbered {
  type: "status";
  status: string;
  message: string;
  facts: Record<string, unknown>;
}

/** From here on this model speaks. `reason` says why the one before it broke; `retry_count` counts those. */
export interface AttemptEvent extends Numbered {
  type: "attempt";
  provider: string;
  model: string;
  level: Level;
  message: string;
  reason?: string;
  error_code?: ErrorCode;
  retry_count: number;
}

/** What came with `seq` from `from_seq` on is not part of the answer any more; `text` of the stream has dropped it. */
export interface RestartEvent extends Numbered {
  type: "restart";
  from_seq: number;
  reason: string;
}

export interface CompleteEvent extends Numbered {
  type: "complete";
  /** The whole text. */
  text: string;
  finish_reason: FinishReason;
  usage: Usage;
  /** In USD. */
  cost: number;
  cost_source: CostSource;
  model: string | null;
  level: Level | null;
  attempts: AttemptMade[];
  parsed?: unknown;
}

export interface CancelledEvent extends Numbered {
  type: "cancelled";
  /** The text so far. */
  text: string;
  usage: Usage | null;
  /** `cancelled` was asked for, `abandoned` had no reader left, `unattended` became too dear unread. */
  reason: string;
}

/** The answer broke off for good. After it the iteration throws a `CallFailed` that says the same. */
export interface ErrorEvent extends Numbered {
  type: "error";
  message: string;
  error_code: ErrorCode;
  /** The text so far. */
  partial: string;
  usage: Usage;
  retry_after?: number;
}

export type StreamEvent =
  | StartEvent
  | TextEvent
  | ThinkingEvent
  | ToolCallEvent
  | ToolResultEvent
  | StatusEvent
  | AttemptEvent
  | RestartEvent
  | CompleteEvent
  | CancelledEvent
  | ErrorEvent;

/** A frame of the server: `data` is what a simple client shows, everything else stands beside it. */
export interface Frame {
  id: string;
  seq?: number;
  type: string;
  data: any;
  epoch?: number;
  [beside: string]: any;
}

/** The event of a frame that has a number. A frame of a newer server that we do not know is a status. */
export function eventOf(frame: Frame & Numbered): StreamEvent {
  const { id: _id, seq, type, data, epoch: _epoch, ...beside } = frame;
  switch (type) {
    case "start":
      return { type, seq, model: beside.model, created: beside.created };
    case "content":
      return { type: "text", seq, text: data, ...beside };
    case "thinking":
      return { type, seq, text: data };
    case "tool_call":
      return { type, seq, call_id: data.call_id, name: data.name, arguments: data.arguments, mark: beside.mark };
    case "tool_result":
      return { type, seq, call_id: data.call_id, name: data.name, content: data.content, ...beside };
    case "complete":
      return { type, seq, text: data, ...beside } as CompleteEvent;
    case "cancelled":
      return { type, seq, text: data, usage: beside.usage, reason: beside.reason };
    case "error":
      if (beside.retrying) return attempt(seq, data, beside, data);
      return {
        type,
        seq,
        message: data,
        error_code: beside.error_code,
        partial: beside.partial,
        usage: beside.usage,
        ...(beside.retry_after === undefined ? {} : { retry_after: beside.retry_after }),
      };
    case "status":
      if (beside.status === "attempt") return attempt(seq, data, beside);
      if (beside.status === "restart") return { type: "restart", seq, from_seq: beside.from_seq, reason: data };
      return status(seq, beside.status, data, beside);
    default:
      return status(seq, type, data, beside);
  }
}

function status(seq: number, name: string, message: unknown, beside: Record<string, unknown>): StatusEvent {
  const { status: _status, ...facts } = beside;
  return { type: "status", seq, status: name, message: typeof message === "string" ? message : "", facts };
}

function attempt(seq: number, message: string, beside: Record<string, any>, reason?: string): AttemptEvent {
  return {
    type: "attempt",
    seq,
    provider: beside.provider,
    model: beside.model,
    level: beside.level,
    message,
    retry_count: beside.retry_count ?? 0,
    ...(reason === undefined ? {} : { reason, error_code: beside.error_code }),
  };
}
