"""What the two inbound doors share: reading a request, believing it or not, and refusing it."""
