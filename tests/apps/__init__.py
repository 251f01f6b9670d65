"""Small apps and servers' ends that the tests of the inbound doors run."""
