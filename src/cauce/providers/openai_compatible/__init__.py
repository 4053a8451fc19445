"""Upstreams that speak OpenAI Chat Completions: one adapter, and dialects as data."""
