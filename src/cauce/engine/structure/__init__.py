"""JSON that a client asked for: how a model is told of it, how it is found in an answer, and whether it is what was asked."""
