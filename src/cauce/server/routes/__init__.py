"""One module per surface. Hot routes take an `Exchange`; the others are Starlette's."""
