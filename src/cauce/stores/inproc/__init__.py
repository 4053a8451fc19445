"""Stores in this process's memory: gone when it ends, bounded while it lives."""
