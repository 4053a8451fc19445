"""Recorded provider traffic, replayed. Not part of the default run: it needs the recordings."""
