// A model server that speaks OpenAI's wire, and says what a test tells it to say, as far as the test lets it.

import { once } from "node:events";
import { createServer } from "node:http";

export class Upstream {
  #server = createServer((request, response) => void this.#answer(request, response));
  /** What the next requests get: `{ text, words, cut, pace }`; after `words` words the stream waits for `release`, or is cut.
   * `pace`: milliseconds between two words. */
  replies = [];
  /** What they get when there are no more `replies`. */
  reply = {};
  requests = [];
  #gates = [];
  /** How many streams were closed before their end. */
  closed = 0;
  #closings = [];

  async start() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}/v1`;
  }

  /** Let all streams that were begun go on to their end. */
  release() {
    for (const open of this.#gates.splice(0)) open();
  }

  /** Return once `count` streams were closed before their end. */
  async untilClosed(count = 1) {
    while (this.closed < count) await new Promise((resolve) => this.#closings.push(resolve));
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #answer(request, response) {
    let body = "";
    for await (const piece of request) body += piece;
    if (request.method !== "POST") return response.end('{"object":"list","data":[{"id":"m"}]}');
    const asked = JSON.parse(body);
    this.requests.push(asked);
    const { text = "Hello from upstream.", words = Infinity, cut = false, pace = 0 } = this.replies.shift() ?? this.reply;
    const gate = new Promise((resolve) => this.#gates.push(resolve));
    const usage = { prompt_tokens: 7, completion_tokens: 5, total_tokens: 12 };
    if (!asked.stream) {
      const choice = { index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" };
      response.setHeader("content-type", "application/json");
      return response.end(JSON.stringify({ id: "c", object: "chat.completion", model: "m", choices: [choice], usage }));
    }
    let over = false;
    response.on("close", () => {
      if (over) return;
      this.closed += 1;
      for (const tell of this.#closings.splice(0)) tell();
    });
    response.writeHead(200, { "content-type": "text/event-stream" });
    const send = (choices, more = {}) =>
      response.write(`data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", model: "m", choices, ...more })}\n\n`);
    let said = 0;
    for (const word of text.match(/\S+\s*/g) ?? []) {
      if (said++ === words) {
        if (cut) return response.destroy();
        await gate;
      }
      send([{ index: 0, delta: { content: word }, finish_reason: null }]);
      // Each word in a packet of its own, so that the server may make a record of each.
      await new Promise((resolve) => (pace ? setTimeout(resolve, pace) : setImmediate(resolve)));
    }
    send([{ index: 0, delta: {}, finish_reason: "stop" }]);
    send([], { usage });
    over = true;
    response.end("data: [DONE]\n\n");
  }
}
