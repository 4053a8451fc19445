"""What Cauce talks about: frozen values and errors. No I/O, no clock, no randomness."""
