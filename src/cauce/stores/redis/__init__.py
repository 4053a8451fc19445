"""Stores in Redis or Valkey, for several processes that share limits and cached answers."""
