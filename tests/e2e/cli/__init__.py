"""The command `cauce`, run as people run it: a process of its own, in an empty home, in front of a fake upstream."""
