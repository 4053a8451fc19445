// What a stream makes of what a server may say, with a scripted `fetch` in the server's place.

import assert from "node:assert/strict";
import { test } from "node:test";

import { CallFailed, Cauce, Unreachable } from "../dist/index.js";

const USAGE = { input_tokens: 1, output_tokens: 2, cached_tokens: 0, cache_write_tokens: 0, reasoning_tokens: 0 };
const END = { finish_reason: "stop", usage: USAGE, cost: 0, cost_source: "unpriced", model: "a/b", level: "primary", attempts: [] };

const frame = (seq, type, data, beside = {}) =>
  `id: ${seq}\ndata: ${JSON.stringify({ id: "s", seq, type, data, epoch: 1, ...beside })}\n\n`;
const start = frame(1, "start", "", { model: "auto", created: 5 });
const content = (seq, text) => frame(seq, "content", text);
const complete = (seq, text, beside = {}) => frame(seq, "complete", text, { ...END, ...beside });
const ok = (...pieces) => new Response(pieces.join(""), { headers: { "content-type": "text/event-stream" } });
const refusal = (status, body, headers = {}) => new Response(JSON.stringify({ request_id: "req_1", ...body }), { status, headers });

/** A client whose requests are answered by `answers` in turn; `asked` is what it asked. */
function scripted(answers, reconnect = {}) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push(`${init.method} ${url.replace("http://x/chat/stream", "")}`);
    const answer = answers.shift();
    if (answer === undefined) throw new TypeError("fetch failed");
    return typeof answer === "function" ? answer(init) : answer;
  };
  return { client: new Cauce({ baseUrl: "http://x/", fetch, reconnect: { baseMs: 0, mostMs: 0, ...reconnect } }), asked };
}

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

test("the start is repeated until a frame has come, then the stream is resumed from its cursor", async () => {
  const { client, asked } = scripted([
    () => Promise.reject(new TypeError("refused")),
    ok("retry: 1000\nid: 0\n\n"),
    ok(start, content(2, "a "), "id: 3\ndata: {"),
    refusal(503, { error: "draining", error_code: "overloaded", retry_after: 0.001 }),
    new Response("<html>bad gateway", { status: 502 }),
    ok(content(2, "a "), content(3, "b"), complete(4, "a b")),
  ]);
  const stream = client.stream("Hi", { id: "s" });
  const events = await all(stream);
  assert.deepEqual(events.map((event) => event.seq), [1, 2, 3, 4]);
  assert.equal(stream.text, "a b");
  const resume = "GET /s/resume?after=2&epoch=1";
  assert.deepEqual(asked, ["POST /s", "POST /s", "POST /s", resume, resume, resume]);
});

test("what is sent says that shown text can be taken back, and carries the key", async () => {
  let sent;
  const fetch = async (url, init) => {
    sent = { url, ...init };
    return ok(start, complete(2, ""));
  };
  await new Cauce({ baseUrl: "http://x", apiKey: "k", fetch }).stream("Hi", { id: "a/b" }).result;
  assert.equal(sent.url, "http://x/chat/stream/a%2Fb");
  assert.equal(sent.headers["X-Cauce-Restart"], "accept");
  assert.equal(sent.headers.Authorization, "Bearer k");
  assert.deepEqual(JSON.parse(sent.body), { messages: [{ role: "user", content: "Hi" }] });
});

test("what becomes of an abandoned stream is said with its start only", async () => {
  const said = [];
  const answers = [new TypeError("fetch failed"), ok(start), ok(complete(2, ""))];
  const fetch = async (_, init) => {
    said.push(init.headers["X-Cauce-On-Disconnect"]);
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const client = new Cauce({ baseUrl: "http://x", fetch, reconnect: { baseMs: 0, mostMs: 0 } });
  await client.stream("Hi", { id: "s", onDisconnect: "grace:120" }).result;
  assert.deepEqual(said, ["grace:120", "grace:120", undefined]);
});

test("a restart takes back text and tool calls from its record on", async () => {
  const call = (seq, mark, call_id = "c1") => frame(seq, "tool_call", { call_id, name: "f", arguments: "{}" }, { mark });
  const { client } = scripted([
    ok(
      start + content(2, "keep ") + content(3, "lose ") + call(4, "piece") + call(5, "ready"),
      frame(6, "status", "the model broke", { status: "restart", from_seq: 3 }) + content(7, "win"),
      call(8, "ready", "c2") + call(9, "ready", "c3") + call(10, "abandoned", "c3") + complete(11, "keep win"),
    ),
  ]);
  const seen = [];
  const stream = client.stream("Hi");
  for await (const event of stream) if (event.type === "text" || event.type === "restart") seen.push(stream.text);
  assert.deepEqual(seen, ["keep ", "keep lose ", "keep ", "keep win"]);
  const result = await stream.result;
  assert.deepEqual(result.tool_calls, [{ call_id: "c2", name: "f", arguments: "{}" }]);
});

test("every frame has its typed event and its progress", async () => {
  const phases = [];
  const statuses = [];
  const { client } = scripted([
    ok(
      `data: ${JSON.stringify({ id: "s", type: "start", data: "", resumed: true })}\n\n`,
      start + frame(2, "status", "Place 3 in the queue", { status: "waiting", place: 3 }),
      frame(3, "status", "Asking a/b", { status: "attempt", provider: "a", model: "a/b", level: "primary" }),
      frame(4, "error", "it broke", {
        ...{ retrying: true, retry_count: 1, error_code: "timeout", strategy: "open", provider: "c", model: "c/d", level: "fallback" },
      }),
      ": hb 1\n" + frame(5, "thinking", "hm") + frame(6, "content", '{"a', { partial: { a: "" } }),
      frame(7, "tool_result", { call_id: "c", name: "f", content: "x" }, { error: "no" }),
      frame(8, "brand_new", "what", { more: 1 }),
      complete(9, '{"a', { parsed: { a: 1 } }),
    ),
  ]);
  const stream = client.stream("Hi", {
    onProgress: (progress) => phases.push(progress),
    onStatus: (status) => statuses.push(status.status),
  });
  const events = await all(stream);
  assert.deepEqual(
    events.map((event) => event.type),
    ["start", "status", "attempt", "attempt", "thinking", "text", "tool_result", "status", "complete"],
  );
  assert.deepEqual(phases, [
    { phase: "connecting" },
    { phase: "open" },
    { phase: "waiting", place: 3 },
    { phase: "retrying", attempt: 1, reason: "it broke" },
    { phase: "thinking" },
    { phase: "answering" },
    { phase: "done", outcome: "completed" },
  ]);
  assert.deepEqual(statuses, ["waiting", "brand_new"]);
  assert.deepEqual(events[1], { type: "status", seq: 2, status: "waiting", message: "Place 3 in the queue", facts: { place: 3 } });
  assert.deepEqual([events[3].reason, events[3].error_code, events[3].model], ["it broke", "timeout", "c/d"]);
  assert.equal(stream.thinking, "hm");
  assert.deepEqual(stream.partial, { a: 1 });
  assert.deepEqual((await stream.result).parsed, { a: 1 });
});

test("the server's Retry-After is kept, and one that is too long is an error at once", async () => {
  const waits = [];
  const onProgress = (progress) => progress.phase === "reconnecting" && waits.push(progress.waitMs);
  const busy = (retry_after) => refusal(429, { error: "slow", error_code: "rate_limited", retry_after });
  const html = new Response("busy", { status: 503, headers: { "retry-after": "0" } });
  const { client } = scripted([busy(0.02), html, ok(start, complete(2, ""))]);
  await client.stream("Hi", { onProgress }).result;
  assert.deepEqual(waits, [20, 0]);
  const long = new Response("busy", { status: 503, headers: { "retry-after": "62" } });
  await assert.rejects(scripted([long]).client.stream("Hi", { id: "s" }).result, { error_code: "unreachable", retry_after: 62 });
  const { client: other, asked } = scripted([busy(61)]);
  await assert.rejects(other.stream("Hi").result, { error_code: "rate_limited", retry_after: 61, status: 429, request_id: "req_1" });
  assert.equal(asked.length, 1);
});

test("waits double up to their bound and are shortened by chance", async () => {
  const waits = [];
  const onProgress = (progress) => progress.phase === "reconnecting" && waits.push(progress.waitMs);
  const { client } = scripted([ok(start)], { baseMs: 1, mostMs: 4, attempts: 5 });
  await assert.rejects(client.stream("Hi", { id: "s", onProgress }).result, Unreachable);
  assert.equal(waits.length, 5);
  [1, 2, 4, 4, 4].forEach((step, place) => assert.ok(waits[place] >= step / 2 && waits[place] <= step, `${waits}`));
});

test("only tries that bring nothing count", async () => {
  const pieces = Array.from({ length: 30 }, (_, place) => (place === 0 ? ok(start) : ok(content(place + 1, "x"))));
  const { client, asked } = scripted([...pieces, ok(complete(31, "x".repeat(29)))], { attempts: 1 });
  assert.equal((await client.stream("Hi", { id: "s" }).result).text.length, 29);
  assert.equal(asked.length, 31);
  const { client: hopeless, asked: tries } = scripted([], { unreached: 2 });
  await assert.rejects(hopeless.stream("Hi", { id: "s" }).result, /fetch failed/);
  assert.equal(tries.length, 3);
});

test("a frame that does not follow is not handed out: it is asked for again", async () => {
  const { client, asked } = scripted([ok(start, content(3, "b")), ok(content(2, "a"), content(3, "b"), complete(4, "ab"))]);
  const stream = client.stream("Hi", { id: "s" });
  assert.deepEqual((await all(stream)).map((event) => event.seq), [1, 2, 3, 4]);
  assert.deepEqual(asked, ["POST /s", "GET /s/resume?after=1&epoch=1"]);
});

for (const [status, code] of [[404, "not_found"], [410, "gone"], [401, "unauthorized"], [409, "conflict"], [402, "quota_exceeded"]]) {
  test(`${status} is an error at once`, async () => {
    const { client, asked } = scripted([refusal(status, { error: "no", error_code: code })]);
    await assert.rejects(client.resume("s", { after: 3 }).result, (error) => {
      assert.ok(error instanceof CallFailed);
      assert.deepEqual([error.error_code, error.status, error.message], [code, status, "no"]);
      return true;
    });
    assert.equal(asked.length, 1);
  });
}

test("a stream that the server lost begins again from record 1, and its text with it", async () => {
  const lost = () => refusal(409, { error: "drop your copy", error_code: "conflict", tail: 1, epoch: 2 });
  const thought = (text) => frame(3, "thinking", text);
  const { client, asked } = scripted([
    ok(start, content(2, "old"), thought("old")),
    lost(),
    ok(start, content(2, "new"), thought("new"), complete(4, "new")),
  ]);
  const stream = client.stream("Hi", { id: "s" });
  const events = await all(stream);
  assert.deepEqual(events.map((event) => event.type), [
    ...["start", "text", "thinking", "restart", "start", "text", "thinking", "complete"],
  ]);
  assert.deepEqual([stream.text, stream.thinking], ["new", "new"]);
  assert.deepEqual(asked.slice(1), ["GET /s/resume?after=3&epoch=1", "GET /s/resume?after=0"]);
  const { client: never } = scripted([ok(start), lost(), lost(), lost()]);
  await assert.rejects(never.stream("Hi").result, { error_code: "conflict" });
});

test("204 ends a resumed stream; its last frame is read again for the result", async () => {
  const { client, asked } = scripted([new Response(null, { status: 204 }), ok(complete(7, "all of it"))]);
  const stream = client.resume("s", { after: 7, epoch: 1 });
  assert.deepEqual(await all(stream), []);
  assert.equal((await stream.result).text, "all of it");
  assert.deepEqual(asked, ["GET /s/resume?after=7&epoch=1", "GET /s/resume?after=6&epoch=1"]);
});

test("a cancelled stream says why", async () => {
  for (const reason of ["cancelled", "abandoned", "unattended"]) {
    const { client } = scripted([ok(start, frame(2, "cancelled", "a", { reason, finish_reason: "cancelled", usage: USAGE }))]);
    const events = await all(client.stream("Hi", { id: "s" }));
    assert.deepEqual(events.at(-1), { type: "cancelled", seq: 2, text: "a", usage: USAGE, reason });
  }
});

test("a cancel is repeated until it is heard, and nothing is begun after it", async () => {
  const busy = () => refusal(503, { error: "busy", error_code: "overloaded" });
  const gone = () => refusal(404, { error: "unknown", error_code: "not_found" });
  const { client, asked } = scripted([() => Promise.reject(new TypeError("refused")), busy(), gone()]);
  const stream = client.stream("Hi", { id: "s" });
  await stream.cancel();
  assert.deepEqual((await all(stream)).map((event) => event.type), ["cancelled"]);
  assert.deepEqual(asked, ["DELETE /s", "DELETE /s", "DELETE /s"]);
});

test("a cancel that nobody heard changes nothing, and may be repeated", async () => {
  const unheard = () => Promise.reject(new TypeError("refused"));
  const { client, asked } = scripted([unheard, ok(start), new Response("{}")], { unreached: 0 });
  const stream = client.stream("Hi");
  await assert.rejects(stream.cancel(), Unreachable);
  for await (const event of stream) if (event.type === "start") break;
  const [first, ...others] = asked.map((one) => one.split(" ")[0]);
  assert.deepEqual([first, ...others], ["DELETE", "POST", "DELETE"]);
});

test("a cancel whose answer breaks off is repeated", async () => {
  const broken = () => new Response(new ReadableStream({ pull: (controller) => controller.error(new TypeError("reset")) }), { status: 503 });
  const { client, asked } = scripted([broken(), new Response("{}")]);
  await client.cancel("s");
  assert.deepEqual(asked, ["DELETE /s", "DELETE /s"]);
});

test("a refusal that never ends is given up after the idle time", async () => {
  const endless = (init) =>
    new Response(new ReadableStream({ start: (controller) => init.signal.addEventListener("abort", () => controller.error(init.signal.reason)) }), { status: 503 });
  const { client, asked } = scripted([endless, ok(start, complete(2, ""))], { idleMs: 20 });
  assert.equal((await client.stream("Hi", { id: "s" }).result).outcome, "completed");
  assert.deepEqual(asked, ["POST /s", "POST /s"]);
});

test("a signal is not kept waiting by a server that does not hear the cancel", async () => {
  const leaving = new AbortController();
  const open = (init) =>
    new Response(new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(start));
        init.signal.addEventListener("abort", () => controller.error(init.signal.reason));
      },
    }));
  let heard;
  const { client, asked } = scripted([open, () => new Promise((resolve) => (heard = resolve))]);
  const stream = client.stream("Hi", { signal: leaving.signal });
  const read = async () => {
    for await (const _ of stream) leaving.abort();
  };
  await assert.rejects(read(), { name: "AbortError" });
  assert.deepEqual(asked.map((one) => one.split(" ")[0]), ["POST", "DELETE"]);
  heard(new Response("{}"));
});

test("a signal that was given already sends nothing at all", async () => {
  const { client, asked } = scripted([]);
  await assert.rejects(client.stream("Hi", { signal: AbortSignal.abort() }).result, { name: "AbortError" });
  assert.deepEqual(asked, []);
});

test("a signal ends a plain answer that has begun, and is let go of by one that has come", async () => {
  const leaving = new AbortController();
  const half = (init) =>
    new Response(new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"resp'));
        init.signal.addEventListener("abort", () => controller.error(init.signal.reason));
        setTimeout(() => leaving.abort());
      },
    }));
  await assert.rejects(scripted([half]).client.message("Hi", { signal: leaving.signal }), { name: "AbortError" });
  const staying = new AbortController();
  let listeners = 0;
  const { signal } = staying;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...given) => ((listeners += 1), add(...given));
  signal.removeEventListener = (...given) => ((listeners -= 1), remove(...given));
  await scripted([new Response('{"response": "Hi"}')]).client.message("Hi", { signal });
  assert.equal(listeners, 0);
});

test("a start that was lost while its cancel was heard is not sent again", async () => {
  let lose;
  const { client, asked } = scripted([
    () => new Promise((_, reject) => (lose = reject)),
    refusal(404, { error: "unknown", error_code: "not_found" }),
  ], { attempts: 0 });
  const stream = client.stream("Hi", { id: "s" });
  const { result } = stream;
  await stream.cancel();
  lose(new TypeError("reset"));
  assert.equal((await result).outcome, "cancelled");
  assert.deepEqual(asked, ["POST /s", "DELETE /s"]);
});

test("a signal ends waiting for a reconnect", async () => {
  const leaving = new AbortController();
  const { client } = scripted([], { baseMs: 60_000, mostMs: 60_000 });
  const stream = client.stream("Hi", { id: "s", signal: leaving.signal, onProgress: ({ phase }) => phase === "reconnecting" && leaving.abort() });
  await assert.rejects(stream.result, { name: "AbortError" });
});

test("what is no frame is a broken connection", async () => {
  const { client } = scripted([ok("data: <html>\n\n"), ok("data: null\n\n"), ok(start, content(2, "x"), complete(3, "x"))]);
  assert.equal((await client.stream("Hi").result).text, "x");
});

test("no promise is rejected that nobody holds", async () => {
  const { client } = scripted([refusal(404, { error: "no", error_code: "not_found" })]);
  const stream = client.resume("s");
  void stream.result;
  await new Promise((resolve) => setTimeout(resolve, 5));
  await assert.rejects(stream.result, { error_code: "not_found" });
});
