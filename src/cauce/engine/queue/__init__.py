"""Waiting for room: who is next at each bottleneck, and when."""
