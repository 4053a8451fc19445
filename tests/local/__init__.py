"""Tests of the local model runtime. They need the extra `local` and are not part of the default run."""
