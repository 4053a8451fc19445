"""The OpenAPI document, made of the same structs that check requests and shape answers."""

from cauce.server.openapi.document import document

__all__ = ["document"]
