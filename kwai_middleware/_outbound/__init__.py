"""Model calls on their way out: what is touched, what is added, what is observed. No I/O of its own."""
