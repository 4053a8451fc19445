"""How applications reach us: HTTP."""
