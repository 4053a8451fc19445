"""OpenAI's legacy Completions: text goes in, its continuation comes out.

A prompt is also told as one message of the user, for models that only converse. `Prompt.text` is empty where only a server of
this wire can answer: tokens in place of text, `best_of`, or the log probabilities of the prompt itself; what was asked then stands
in the request's extra, under `prompt`. The rest of `Extra("openai_completions", …)`: of a request its unknown fields by name; of a
delta `chunk` and `choice`, the unknown fields of each level; of a finish `chunk`, and `finish_reasons`, the upstream's words.
"""
