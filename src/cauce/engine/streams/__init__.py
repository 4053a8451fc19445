"""Streams with an id: a producer appends deltas to the log, readers tail it."""
