"""What the engine needs from the world: one Protocol per file, and the values that travel through them."""
