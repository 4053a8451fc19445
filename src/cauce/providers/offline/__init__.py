"""The offline answerer: quotes Cauce's guide and the conversation where no model answers."""
