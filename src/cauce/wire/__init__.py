"""How others speak: pure codecs, both directions. No I/O."""
