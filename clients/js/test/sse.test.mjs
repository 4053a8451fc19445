// The parser: whatever the bytes' split, the same events.

import assert from "node:assert/strict";
import { test } from "node:test";

import { SSEParser } from "../dist/index.js";

const bytes = (text) => new TextEncoder().encode(text);
const SAMPLE =
  "\ufeffretry: 1000\nid: 0\n\n: hb 1\nid: 1\ndata: {\"a\":\"río 🌊\"}\n\r\n" +
  "data: one\r\ndata:two\r\n\r\nevent: x\rdata: three\r\r: only a comment\n\ndata\n\ndatum: no\n\ndata: last\n\n";
const EVENTS = ['{"a":"río 🌊"}', "one\ntwo", "three", "", "last"];

test("any split of the bytes gives the same events", () => {
  const raw = bytes(SAMPLE);
  for (let first = 0; first <= raw.length; first += 1) {
    for (const second of [first, Math.min(first + 1, raw.length), raw.length]) {
      const parser = new SSEParser();
      const pieces = [raw.subarray(0, first), raw.subarray(first, second), raw.subarray(second)];
      assert.deepEqual(pieces.flatMap((piece) => parser.feed(piece)), EVENTS, `cut at ${first} and ${second}`);
    }
  }
  const parser = new SSEParser();
  assert.deepEqual([...raw].flatMap((byte) => parser.feed(Uint8Array.of(byte))), EVENTS);
});

test("an event that was not ended is not reported", () => {
  assert.deepEqual(new SSEParser().feed(bytes("data: one\n\ndata: half\n")), ["one"]);
});

test("an event has a bound, in one line and in many", () => {
  assert.throws(() => new SSEParser(10).feed(bytes("data: 12345678901")), /larger than 10/);
  const parser = new SSEParser(10);
  assert.throws(() => {
    for (let line = 0; line < 10; line += 1) parser.feed(bytes("data: 12\n"));
  }, /larger than 10/);
  const other = new SSEParser(10);
  for (let event = 0; event < 10; event += 1) assert.deepEqual(other.feed(bytes("data: 12\n\n")), ["12"]);
});
