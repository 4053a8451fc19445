"""Where things are kept. Adapters know nothing of the engine."""
