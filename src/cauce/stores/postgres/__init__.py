"""What several processes keep in PostgreSQL together. Only this package imports the driver: the extra `postgres`."""
