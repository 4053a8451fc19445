/** Where a stream stands, in words a user interface can show. */

import type { StreamEvent } from "./events.js";

export type Progress =
  | { phase: "connecting" }
  /** The server has the question. */
  | { phase: "open" }
  /** In a queue, at `place`. */
  | { phase: "waiting"; place: number | undefined }
  | { phase: "thinking" }
  /** A tool call is being written. */
  | { phase: "calling" }
  | { phase: "answering" }
  /** A model failed for `reason`, the next is asked; `attempt` counts. */
  | { phase: "retrying"; attempt: number; reason: string }
  /** The connection was lost for `reason`; try number `attempt` follows in `waitMs` milliseconds. */
  | { phase: "reconnecting"; attempt: number; waitMs: number; reason: string }
  | { phase: "done"; outcome: "completed" | "cancelled" | "failed" };

// One value for all pieces of a kind, so that "nothing new" is seen at a glance.
const THINKING: Progress = { phase: "thinking" };
const CALLING: Progress = { phase: "calling" };
const ANSWERING: Progress = { phase: "answering" };

/** What an event says of where its stream stands; undefined if nothing. */
export function progressOf(event: StreamEvent): Progress | undefined {
  switch (event.type) {
    case "text":
      return ANSWERING;
    case "thinking":
      return THINKING;
    case "tool_call":
      return CALLING;
    case "status":
      if (event.status !== "waiting") return undefined;
      return { phase: "waiting", place: typeof event.facts.place === "number" ? event.facts.place : undefined };
    case "attempt":
      if (event.reason === undefined) return undefined;
      return { phase: "retrying", attempt: event.retry_count, reason: event.reason };
    case "complete":
      return { phase: "done", outcome: "completed" };
    case "cancelled":
      return { phase: "done", outcome: "cancelled" };
    case "error":
      return { phase: "done", outcome: "failed" };
    default:
      return undefined;
  }
}
