"""Figures for operators. Adapters know nothing of the engine."""
