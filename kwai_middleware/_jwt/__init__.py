"""What it takes to believe a JSON Web Token: keys, signatures, claims. Needs the extra `jwt`."""
