"""Finding the model servers that run on this machine."""

from cauce.providers.discovery.scan import Discovery, Found, Settings

__all__ = ["Discovery", "Found", "Settings"]
