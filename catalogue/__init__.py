"""Makes `src/cauce/catalogue/facts.json`, which the server ships: `make catalogue`. Nothing here runs in a server."""
