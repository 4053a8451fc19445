"""What Cauce does. No HTTP, no SQL, no environment."""
