"""Public fakes: a scripted provider, a fake provider server that takes a fault script, a fake clock. Use them in your tests."""
