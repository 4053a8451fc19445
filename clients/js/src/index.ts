export { Cauce, type CauceOptions, type ResumeOptions, type StreamOptions } from "./cauce.js";
export type {
  Answer,
  AttemptMade,
  CostSource,
  FinishReason,
  Level,
  Message,
  MessageRequest,
  Question,
  ToolCall,
  Usage,
} from "./body.js";
export type { OnDisconnect } from "./connection.js";
export { CallFailed, CauceError, type ErrorCode, Unreachable } from "./errors.js";
export type * from "./events.js";
export type { Progress } from "./progress.js";
export type { Reconnect } from "./reconnect.js";
export { AnswerStream, type ReadOptions } from "./stream.js";
export { SSEParser } from "./sse.js";
export type { Result } from "./transcript.js";
