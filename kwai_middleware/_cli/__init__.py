"""The parts of the command line that are more than a few lines: all that prints is in here."""
