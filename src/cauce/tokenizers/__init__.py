"""Counting tokens as a model does, where its vocabulary is installed (extra `tokens`). Only bootstrap knows of it."""
