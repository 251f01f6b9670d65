"""Servers on loopback, each in a process of its own: a model, and a sink that accepts whatever is exported to it."""
