// The client against a real server, over a network that breaks: each event once, whatever happens.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test as nodeTest } from "node:test";

import { CallFailed, Cauce, Unreachable } from "../dist/index.js";
import { CuttingProxy } from "./support/proxy.mjs";
import { Server } from "./support/server.mjs";
import { Upstream } from "./support/upstream.mjs";

const AT_ONCE = { baseMs: 0, mostMs: 0 };
const WORDS = "El río 🌊 baja.";
const ask = { model: "up/m", messages: [{ role: "user", content: "Hello?" }] };

let upstream, server, proxy, client;

before(async () => {
  upstream = await new Upstream().start();
  server = await new Server().start(upstream.url);
});
after(async () => {
  upstream.release();
  await server.stop();
  upstream.stop();
});
beforeEach(async () => {
  upstream.replies = [];
  upstream.reply = {};
  upstream.requests = [];
  upstream.closed = 0;
  proxy = await new CuttingProxy(server.url).start();
  client = new Cauce({ baseUrl: proxy.url, reconnect: AT_ONCE });
});
afterEach(() => proxy.stop());

/** A test that would hang fails instead. */
const test = (name, work) => nodeTest(name, { timeout: 60_000 }, work);

let made = 0;
const newId = () => `live-${(made += 1)}`;
const textOf = (events) => events.filter((event) => event.type === "text").map((event) => event.text).join("");

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

/** Read until the text is `wanted`; the iterator, to go on with. */
async function untilText(stream, wanted) {
  const iterator = stream[Symbol.asyncIterator]();
  while (stream.text !== wanted) assert.equal((await iterator.next()).done, false, "the stream ended");
  return iterator;
}

test("a plain answer comes whole, and its errors are typed", async () => {
  const answer = await client.message(ask);
  assert.equal(answer.response, "Hello from upstream.");
  assert.equal(answer.model, "up/m");
  assert.equal(answer.usage.output_tokens, 5);
  await assert.rejects(client.message({ ...ask, temperature: 9 }), (error) => {
    assert.ok(error instanceof CallFailed);
    assert.deepEqual([error.error_code, error.status, error.field], ["invalid_request", 400, "temperature"]);
    assert.match(error.request_id, /^req_/);
    return true;
  });
  await assert.rejects(client.message({ ...ask, model: "nobody/knows" }), { error_code: "model_not_found" });
  await assert.rejects(new Cauce({ baseUrl: "http://127.0.0.1:1" }).message("Hello?"), Unreachable);
  await assert.rejects(new Cauce({ baseUrl: upstream.url }).message("Hello?"), Unreachable);
  await assert.rejects(client.message(ask, { signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("a stream gives typed events, its text so far, its progress and its result", async () => {
  const told = [];
  const stream = client.stream(ask, { onProgress: (progress) => told.push(progress.phase) });
  const events = await all(stream);
  assert.deepEqual([...new Set(events.map((event) => event.type))], ["start", "attempt", "text", "complete"]);
  assert.deepEqual(events.map((event) => event.seq), events.map((_, place) => place + 1));
  assert.equal(textOf(events), "Hello from upstream.");
  assert.equal(stream.text, "Hello from upstream.");
  assert.deepEqual(told, ["connecting", "open", "answering", "done"]);
  const result = await stream.result;
  assert.equal(result.text, "Hello from upstream.");
  assert.deepEqual([result.outcome, result.finish_reason, result.model], ["completed", "stop", "up/m"]);
  assert.equal(result.usage.input_tokens, 7);
  assert.equal(result.id, stream.id);
  assert.match(result.request_id, /^req_/);
  assert.throws(() => stream[Symbol.asyncIterator](), /read once/);
  assert.equal((await client.stream("What is a cascade?").result).outcome, "completed");
});

test("a connection cut at every byte gives each event once", async () => {
  upstream.replies = [{ text: WORDS }];
  assert.equal(textOf(await all(client.stream(ask, { id: "js-warm" }))), WORDS);
  const length = proxy.carried;
  assert.ok(length > 900);
  let cuts = 0;
  const straight = new Cauce({ baseUrl: server.url });
  for (let position = 0; position < length + 20; position += 1) {
    const asked = upstream.requests.length;
    upstream.replies = [{ text: WORDS }];
    proxy.cutAfter(position, position % 2 ? "close" : "reset");
    const stream = client.stream(ask, { id: `js-${String(position).padStart(4, "0")}` });
    const events = await all(stream);
    assert.deepEqual(events, await all(straight.resume(stream.id)), `cut after ${position} bytes`);
    assert.equal(textOf(events), WORDS);
    assert.equal(stream.text, WORDS);
    assert.equal((await stream.result).text, WORDS);
    assert.equal(upstream.requests.length, asked + 1, `cut after ${position} bytes`);
    cuts += proxy.cut ? 1 : 0;
  }
  // An answer whose words came together is shorter than the first one.
  assert.ok(cuts > length / 2, `${cuts} cuts in ${length} bytes`);
});

test("a connection that is cut again and again comes to the end", async () => {
  const text = Array.from({ length: 60 }, (_, number) => `word${number}`).join(" ");
  upstream.replies = [{ text, pace: 3 }];
  let cuts = 0;
  proxy.cutAfter(700);
  const stream = client.stream(ask);
  for await (const _ of stream) {
    if (proxy.cut) {
      cuts += 1;
      proxy.cutAfter(700);
    }
  }
  assert.equal(stream.text, text);
  assert.ok(cuts > 3, `${cuts} cuts`);
  assert.equal(upstream.requests.length, 1);
});

for (const position of [0, 300, 700, 1000]) {
  test(`a connection that goes silent after ${position} bytes is given up and made again`, async () => {
    const told = [];
    const impatient = new Cauce({ baseUrl: proxy.url, reconnect: { ...AT_ONCE, idleMs: 300 } });
    proxy.cutAfter(position, "hang");
    const stream = impatient.stream(ask, { onProgress: (progress) => told.push(progress) });
    assert.equal((await stream.result).text, "Hello from upstream.");
    assert.match(told.find((progress) => progress.phase === "reconnecting").reason, /silent for 0.3 s/);
    assert.equal(upstream.requests.length, 1);
  });
}

test("heartbeats keep a quiet stream connected", async () => {
  upstream.replies = [{ text: "one two", words: 1 }];
  const patient = new Cauce({ baseUrl: proxy.url, reconnect: { idleMs: 2500 } });
  const stream = patient.stream(ask);
  const iterator = await untilText(stream, "one ");
  const before = proxy.carried;
  const next = iterator.next();
  while (proxy.carried < before + 3 * ": hb 1\n".length) await new Promise((resolve) => setTimeout(resolve, 50));
  upstream.release();
  assert.equal((await next).value.text, "two");
  for await (const _ of iterator);
  assert.equal(proxy.connections, 1);
});

test("another page reads on from where the first one stopped, and all of it again", async () => {
  upstream.replies = [{ text: "one two three four", words: 2 }];
  const id = newId();
  const stream = client.stream(ask, { id });
  await (await untilText(stream, "one two ")).return();
  upstream.release();
  const other = new Cauce({ baseUrl: proxy.url });
  const rest = other.resume(id, { after: stream.cursor, epoch: stream.epoch });
  assert.equal(textOf(await all(rest)), "three four");
  assert.equal(rest.text, "one two three four", "the end brings the whole");
  assert.equal((await other.resume(id).result).text, "one two three four");
  assert.equal(upstream.requests.length, 1);
  assert.equal(upstream.closed, 0);
});

test("two readers get the same events", async () => {
  upstream.replies = [{ text: "one two three four", words: 1 }];
  const id = newId();
  const first = client.stream(ask, { id });
  await (await untilText(first, "one ")).return();
  const readers = [all(client.stream(ask, { id })), all(new Cauce({ baseUrl: server.url }).resume(id))];
  upstream.release();
  const [one, two] = await Promise.all(readers);
  assert.deepEqual(one, two);
  assert.equal(textOf(one), "one two three four");
  assert.equal(upstream.requests.length, 1);
});

test("cancel stops the model and ends the stream", async () => {
  upstream.replies = [{ text: "one two three", words: 2 }];
  const id = newId();
  const stream = client.stream(ask, { id });
  const iterator = await untilText(stream, "one two ");
  const last = iterator.next();
  await stream.cancel();
  assert.deepEqual(pick((await last).value), { type: "cancelled", text: "one two " });
  await upstream.untilClosed();
  assert.equal((await iterator.next()).done, true);
  const result = await stream.result;
  assert.deepEqual([result.outcome, result.finish_reason, result.text], ["cancelled", "cancelled", "one two "]);
  assert.deepEqual(stream.progress, { phase: "done", outcome: "cancelled" });
  await client.cancel(id);
  await client.cancel("js-never-was");
});

const pick = ({ type, text }) => ({ type, text });

test("a cancel that comes before the start is not overtaken by it", async () => {
  const id = newId();
  const stream = client.stream(ask, { id });
  await stream.cancel();
  assert.deepEqual((await all(stream)).map((event) => event.type), ["cancelled"]);
  const another = await all(client.stream(ask, { id }));
  assert.equal(another.at(-1).type, "cancelled");
  assert.equal(upstream.requests.length, 0);
});

test("leaving stops a stream nobody else can name, and no other", async () => {
  upstream.replies = [
    { text: "one two", words: 1 },
    { text: "one two", words: 1 },
    { text: "one two", words: 1 },
  ];
  const id = newId();
  for await (const event of client.stream(ask, { id })) if (event.type === "text") break;
  const state = await (await fetch(`${server.url}/chat/stream/${id}`)).json();
  assert.equal(state.state, "running");
  assert.equal(upstream.closed, 0);
  for await (const event of client.stream(ask)) if (event.type === "text") break;
  await upstream.untilClosed(1);
  const leaving = new AbortController();
  const stream = client.stream(ask, { signal: leaving.signal });
  const iterator = await untilText(stream, "one ");
  const next = iterator.next();
  leaving.abort();
  await assert.rejects(next, { name: "AbortError" });
  await assert.rejects(stream.result, { name: "AbortError" });
  await upstream.untilClosed(2);
  upstream.release();
});

for (const [onDisconnect, id] of [["cancel", undefined], ["cancel", newId()], ["grace:0.05", undefined], ["grace:0.05", newId()]]) {
  test(`leaving a stream that is to be cancelled (${onDisconnect}) closes the upstream: ${id ?? "no id"}`, async () => {
    upstream.replies = [{ text: "one two", words: 1 }];
    const stream = client.stream(ask, { onDisconnect, ...(id && { id }) });
    for await (const event of stream) if (event.type === "text") break;
    await upstream.untilClosed(1);
    assert.equal((await client.resume(stream.id).result).outcome, "cancelled");
    upstream.release();
  });
}

for (const onDisconnect of ["continue", "grace", "grace:60"]) {
  test(`leaving a stream that is to go on (${onDisconnect}) does not cancel it`, async () => {
    upstream.replies = [{ text: "one two", words: 1 }];
    const stream = client.stream(ask, { onDisconnect });
    for await (const event of stream) if (event.type === "text") break;
    upstream.release();
    assert.equal((await client.resume(stream.id).result).text, "one two");
    assert.deepEqual([upstream.requests.length, upstream.closed], [1, 0]);
  });
}

test("a broken connection ends a stream that is to be cancelled, and its reader is told why", async () => {
  upstream.replies = [{ text: "one two", words: 1 }];
  const stream = client.stream(ask, { onDisconnect: "cancel" });
  const iterator = await untilText(stream, "one ");
  proxy.cutAfter(0, "close");
  const rest = await all(iterator);
  assert.deepEqual([rest.at(-1).type, rest.at(-1).reason], ["cancelled", "abandoned"]);
  await upstream.untilClosed(1);
  upstream.release();
});

test("what is no policy is refused by its name", async () => {
  const stream = client.stream(ask, { onDisconnect: "stay" });
  await assert.rejects(stream.result, { error_code: "invalid_request", status: 400, field: "X-Cauce-On-Disconnect" });
  assert.equal(upstream.requests.length, 0);
});

test("a stream that is over has nothing left, and still its result", async () => {
  const id = newId();
  const stream = client.stream(ask, { id });
  const { text } = await stream.result;
  const rest = client.resume(id, { after: stream.cursor, epoch: stream.epoch });
  assert.deepEqual(await all(rest), []);
  assert.equal((await rest.result).text, text);
});

test("an answer that breaks off is an error event and then thrown, once", async () => {
  upstream.reply = { text: "one two", words: 1, cut: true };
  const id = newId();
  const stream = client.stream(ask, { id });
  const events = [];
  await assert.rejects(
    async () => {
      for await (const event of stream) events.push(event);
    },
    (error) => error instanceof CallFailed && error.error_code === "provider_error" && /^req_/.test(error.request_id),
  );
  const last = events.at(-1);
  assert.deepEqual([last.type, last.partial, last.error_code], ["error", stream.text, "provider_error"]);
  assert.match(stream.text, /^one /);
  await assert.rejects(stream.result, CallFailed);
  const rest = client.resume(id, { after: stream.cursor });
  assert.deepEqual(await all(rest), []);
  await assert.rejects(rest.result, CallFailed);
});

test("a place that the server does not know begins again and says so", async () => {
  const id = newId();
  const whole = await all(client.stream(ask, { id }));
  for (const place of [{ after: 999 }, { after: 2, epoch: 77 }]) {
    const rest = client.resume(id, place);
    const [restart, ...events] = await all(rest);
    assert.deepEqual([restart.type, restart.from_seq], ["restart", 1]);
    assert.deepEqual(events, whole);
    assert.equal(rest.text, "Hello from upstream.");
  }
});

test("what cannot be resumed or begun is a typed error at once", async () => {
  const id = newId();
  await client.stream(ask, { id }).result;
  const refused = [
    [client.resume("js-nowhere"), "not_found", 404],
    [client.stream("Another?", { id }), "conflict", 409],
    [client.stream({ ...ask, model: "nobody/knows" }), "model_not_found", 404],
    [client.stream({ ...ask, temperature: 9 }), "invalid_request", 400],
    [client.stream(ask, { id: " " }), "invalid_request", 400],
  ];
  for (const [stream, error_code, status] of refused) {
    await assert.rejects(stream.result, (error) => {
      assert.deepEqual([error.constructor, error.error_code, error.status], [CallFailed, error_code, status]);
      return true;
    });
    assert.equal(stream.progress.phase, "connecting");
  }
  await assert.rejects(client.cancel(" "), { error_code: "invalid_request" });
});

test("stream ids in any script and with any sign work", async () => {
  for (const id of ["río-🌊?a=1&b#c%2F", "a+b", "..."]) {
    assert.equal((await client.stream(ask, { id }).result).id, id);
    assert.equal((await client.resume(id).result).text, "Hello from upstream.");
  }
});

test("a server that is gone for good is told after some tries", async () => {
  upstream.replies = [{ text: "one two", words: 1 }];
  const told = [];
  const failing = new Cauce({ baseUrl: proxy.url, reconnect: { ...AT_ONCE, attempts: 3 } });
  const stream = failing.stream(ask, { id: newId(), onProgress: (progress) => told.push(progress) });
  const iterator = await untilText(stream, "one ");
  proxy.stop();
  await assert.rejects(iterator.next(), Unreachable);
  const tries = told.filter((progress) => progress.phase === "reconnecting").map((progress) => progress.attempt);
  assert.deepEqual(tries, [1, 2, 3]);
  upstream.release();
});
