"""The embedded index: Qdrant Edge, in its own processes on one folder."""
