/**
 * What goes wrong, as errors that can be told apart.
 *
 *     CauceError
 *     ├── CallFailed    the server answered with an error, or its stream ended in one: `error_code` says which
 *     └── Unreachable   no answer of a Cauce came: no connection, a broken one, or somebody else answered
 *
 * What an `AbortSignal` ends throws the signal's reason, as `fetch` does.
 */

/** Codes that the server uses today; a newer one may know more. */
export type ErrorCode =
  | "invalid_request"
  | "context_length_exceeded"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "model_not_found"
  | "request_timeout"
  | "conflict"
  | "gone"
  | "payload_too_large"
  | "headers_too_large"
  | "rate_limited"
  | "quota_exceeded"
  | "overloaded"
  | "provider_error"
  | "timeout"
  | "internal"
  | "unreachable"
  | (string & {});

/** What an error tells beside its message. `retry_after` is in seconds, `status` the HTTP status where there was one. */
export interface ErrorDetails {
  error_code: ErrorCode;
  status?: number | undefined;
  field?: string | undefined;
  retry_after?: number | undefined;
  request_id?: string | undefined;
  /** Whatever else the server told. */
  facts?: Record<string, unknown>;
}

export class CauceError extends Error {
  readonly error_code: ErrorCode;
  readonly status: number | undefined;
  readonly field: string | undefined;
  readonly retry_after: number | undefined;
  readonly request_id: string | undefined;
  readonly facts: Record<string, unknown>;

  constructor(message: string, details: ErrorDetails, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.error_code = details.error_code;
    this.status = details.status;
    this.field = details.field;
    this.retry_after = details.retry_after;
    this.request_id = details.request_id;
    this.facts = details.facts ?? {};
  }
}

/** The server's word. */
export class CallFailed extends CauceError {}

/** Nobody can say what became of the request. */
export class Unreachable extends CauceError {
  constructor(message: string, details: Partial<ErrorDetails> = {}, options?: { cause?: unknown }) {
    super(message, { ...details, error_code: "unreachable" }, options);
  }
}

/** The error that an answer stands for which is none; `text` is its body. */
export function refused(response: Response, text: string): CauceError {
  const given = response.headers.get("retry-after");
  const waits = given !== null && /^\d+$/.test(given) ? Number(given) : undefined;
  const told = object(text);
  if (typeof told?.error !== "string" || typeof told.error_code !== "string") {
    const message = `what answered with HTTP ${response.status} is no Cauce; check baseUrl: ${text.slice(0, 200)}`;
    return new Unreachable(message, { status: response.status, retry_after: waits });
  }
  const { error, error_code, request_id, field, retry_after, ...facts } = told;
  return new CallFailed(error as string, {
    error_code: error_code as string,
    status: response.status,
    field: typeof field === "string" ? field : undefined,
    retry_after: typeof retry_after === "number" ? retry_after : waits,
    request_id: typeof request_id === "string" ? request_id : (response.headers.get("x-cauce-request-id") ?? undefined),
    facts,
  });
}

function object(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
