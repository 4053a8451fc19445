"""Proofs under load, against real server processes and over real sockets. `make test-load` runs them; tests/e2e has short versions."""
