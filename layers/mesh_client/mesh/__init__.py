"""MESH protocol."""
