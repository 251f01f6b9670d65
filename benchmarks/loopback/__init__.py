"""A server on loopback in a process of its own: a model, or a sink that takes whatever is exported to it, or both."""
