"""Upstreams that speak OpenAI Responses."""
