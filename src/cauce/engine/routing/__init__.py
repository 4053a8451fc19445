"""From the model name a client sent to the ordered candidates that may answer it."""

from cauce.engine.routing.route import Route
from cauce.engine.routing.router import Router
from cauce.engine.routing.source import Source

__all__ = ["Route", "Router", "Source"]
