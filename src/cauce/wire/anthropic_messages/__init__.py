"""Anthropic's Messages, as client and as server speak it.

Unknown fields are carried in `Extra("anthropic_messages", …)`. What its data holds:

- of a request, where it is always there: `body`, the unknown fields (with `thinking` and `output_config` as they were sent), and `headers`, the
  versions the client named;
- of a message: `message`, its unknown fields. A system message that has it stood among the messages, not before them;
- of a part, a tool result and a tool: `block`, its unknown fields (`cache_control`, `caller`, …);
- of a delta: `block` on the first one of its block; `deltas`, raw deltas of kinds unknown here; and on the first of the answer
  `message`, what `message_start` said, so that nothing has to be shown before there is something to show. A `Finish` has
  `delta` and `event`, the fields of `message_delta` at both levels, and `message` if no other delta carried it.

An `Opaque` delta or `OpaquePart` is one whole block, as a plain answer has it. Reasoning that only its maker can read
(`redacted_thinking`) is a signature whose id is that word.
"""
