"""OpenAI Chat Completions, as client and as server speak it.

Unknown fields are carried in `Extra("openai_chat", …)`, each value's members named after where they came from:

* a request: its unknown fields, by name; a message likewise; a content part likewise.
* a tool: its unknown fields, and under `function` those of its function. `custom`: it is a custom tool, and this is what it is
  made of; `legacy`: it came in the old field `functions`.
* a tool call of a message: its unknown fields, and under `function` those of its function. `custom`: it calls a custom tool.
* reasoning of a message: `detail`, the entry of `reasoning_details` it came in.
* a delta: `chunk`, `choice` and `delta`, the unknown fields of each level (of a plain answer, `message` counts as the delta).
  Beside them, of a tool call `call` and `function`, and `custom`, the piece of a custom tool's input; of reasoning `field`, the
  name its upstream calls it; of a citation `annotation`.
* a finish: `chunk`, and `finish_reasons`, the upstream's own words by choice.
"""
