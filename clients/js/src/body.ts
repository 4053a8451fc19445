/** What is sent, and the plain answer: the fields of `POST /llm/message`, under the server's own names. */

/** One message of a conversation. */
export interface Message {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content?: string | Record<string, unknown>[] | null;
  tool_calls?: Record<string, unknown>[];
  tool_call_id?: string;
  [field: string]: unknown;
}

/** Body of a call. `timeout` is in seconds; `fallbacks` are further models to try. */
export interface MessageRequest {
  messages: Message[];
  model?: string;
  temperature?: number;
  top_p?: number;
  top_k?: number;
  max_tokens?: number;
  stop?: string | string[];
  seed?: number;
  tools?: Record<string, unknown>[];
  tool_choice?: string | Record<string, unknown>;
  response_format?: Record<string, unknown>;
  reasoning_effort?: string;
  fallbacks?: string[];
  timeout?: number;
  conversation_id?: string;
  user?: string;
  task?: string;
  metadata?: Record<string, unknown>;
  [field: string]: unknown;
}

/** A question, or the whole body. */
export type Question = string | MessageRequest;

export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter" | "cancelled" | "error";
export type Level = "primary" | "fallback" | "cache" | "offline";
export type CostSource = "reported" | "priced" | "estimated" | "unpriced";

/**
 * Tokens. `input_tokens` includes cache reads and writes, `output_tokens` includes reasoning. `estimated` is there where no provider
 * has reported all of them.
 */
export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_tokens: number;
  cache_write_tokens: number;
  reasoning_tokens: number;
  estimated?: true;
}

/** One provider that was asked; `error` says why it did not answer. */
export interface AttemptMade {
  provider: string;
  model: string;
  level: Level;
  error?: string;
  error_code?: string;
}

/** A tool that the model wants called. `arguments` is JSON as the model wrote it. */
export interface ToolCall {
  call_id: string;
  name: string;
  arguments: string;
}

/** The plain answer. `cost` is in USD, `processing_time` in seconds. */
export interface Answer {
  response: string;
  model: string;
  tokens_used: number;
  processing_time: number;
  usage: Usage;
  cost: number;
  cost_source: CostSource;
  finish_reason: FinishReason;
  stream_id: string;
  cached: boolean;
  attempts: AttemptMade[];
  tool_calls?: ToolCall[];
  reasoning?: string;
  conversation_id?: string;
  parsed?: unknown;
}

/** The body of `question`, as JSON. */
export function written(question: Question): string {
  return JSON.stringify(typeof question === "string" ? { messages: [{ role: "user", content: question }] } : question);
}
