"""Cauce measured beside its neighbours: one mock upstream, one load, the same method for all.

Nothing here is imported by Cauce. Run it with `python -m bench`; `README.md` says what it means.
"""
