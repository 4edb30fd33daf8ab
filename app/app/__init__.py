"""Oceano finds a face in millions of photographs."""

__version__ = "0.1.0"
