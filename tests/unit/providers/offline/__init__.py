"""The offline answerer."""
