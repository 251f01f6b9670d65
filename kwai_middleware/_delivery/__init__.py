"""The delivering half: a finished call becomes a record, waits in the spool and is posted."""
