"""Stores in SQLite files in the data folder, with the standard library's driver."""
