"""The spool in a SQLite file: shared by the processes of a host, and there again after a crash."""
