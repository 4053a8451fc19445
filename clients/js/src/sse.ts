/**
 * Server-sent events, incremental: bytes in, events out, whatever the bytes' split.
 *
 * Lines end in LF, CRLF or CR; an event ends at an empty line; several `data` lines are joined by LF; lines that begin with a
 * colon are comments (WHATWG HTML, "Server-sent events"). Beyond the standard: an event without data is not reported.
 */

/** Characters one event may have. */
export const MOST = 8 * 1024 * 1024;

export class EventTooLarge extends Error {}

export class SSEParser {
  // Characters cut by the network wait in here, and a byte order mark is dropped.
  readonly #decoder = new TextDecoder();
  readonly #most: number;
  #line = "";
  #data: string[] = [];
  #size = 0;
  #afterReturn = false;

  constructor(most: number = MOST) {
    this.#most = most;
  }

  /** The `data` of each event that `bytes` complete. Throws `EventTooLarge`. */
  feed(bytes: Uint8Array): string[] {
    const text = this.#decoder.decode(bytes, { stream: true });
    const events: string[] = [];
    let start = 0;
    if (this.#afterReturn && text !== "") {
      // An LF behind a CR belongs to the same line end, even if it came later.
      if (text[0] === "\n") start = 1;
      this.#afterReturn = false;
    }
    for (;;) {
      const end = lineEnd(text, start);
      if (end < 0) break;
      this.#take(this.#line + text.slice(start, end), events);
      this.#line = "";
      start = end + 1;
      if (text[end] === "\r") {
        if (start === text.length) this.#afterReturn = true;
        else if (text[start] === "\n") start += 1;
      }
    }
    this.#line += text.slice(start);
    if (this.#line.length + this.#size > this.#most) throw new EventTooLarge(`an event is larger than ${this.#most} characters`);
    return events;
  }

  #take(line: string, events: string[]): void {
    if (line === "") {
      if (this.#data.length > 0) events.push(this.#data.join("\n"));
      this.#data = [];
      this.#size = 0;
      return;
    }
    const colon = line.indexOf(":");
    if ((colon < 0 ? line : line.slice(0, colon)) !== "data") return;
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    this.#data.push(value);
    this.#size += value.length;
  }
}

function lineEnd(text: string, from: number): number {
  const feed = text.indexOf("\n", from);
  const back = text.indexOf("\r", from);
  if (feed < 0 || back < 0) return Math.max(feed, back);
  return Math.min(feed, back);
}
