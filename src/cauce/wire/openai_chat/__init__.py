"""OpenAI Chat Completions, as client and as server speak it.

Unknown fields are carried in `Extra("openai_chat", …)`. On deltas its data has up to three members: `chunk`, `choice` and
`delta`, the unknown fields of each level; a plain completion uses the same three (its `message` counts as the delta).
"""
