"""OpenAI Responses, as client and as server speak it.

What only this wire knows is carried in `Extra("openai_responses", …)`:

- On a part of an answer or of an assistant's message, and on deltas: `item`, the fields of the item (`id`, `phase`, …), whose
  presence says that a new item begins here; `part`, unknown fields of the content part; `done`, fields of the item that
  changed when it ended. On reasoning also `parts`, a list of `[offset, type]`: where in the text which summary or content
  part begins. On pieces of a custom tool's call also `input`, the piece as free text.
- On other messages: `item`, the unknown fields of the item; `instructions: true` marks what came in that field.
- On a custom tool: `tool`, as the client sent it.
- On a request: its unknown fields, and of `text`, `reasoning`, `include` and `tool_choice` what the domain has no place for.
  It is there, if empty, on every request of this wire.
- On a `Finish`: `response`, the fields of the upstream's response; `items`, by id, what its final items say differently.

`OpaquePart` and `Opaque` hold `{"item": …}` (an item), `{"part": …}` (a content part) or `{"event": …}` (an event about an
item that is not finished yet).
"""
