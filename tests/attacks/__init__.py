"""Attacks, each through the public doors."""
