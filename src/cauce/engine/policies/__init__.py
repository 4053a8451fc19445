"""One policy per file: a function that takes `open` and returns one with something added."""
