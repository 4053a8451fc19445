"""Going on with an answer whose provider failed after its first delta."""
