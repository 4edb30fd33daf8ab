"""Bytes of a file become upright pixels; thumbnails."""
