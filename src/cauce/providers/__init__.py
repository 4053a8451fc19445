"""The models we call. Adapters know nothing of the engine."""
