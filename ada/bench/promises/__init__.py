"""How many promises of time a server keeps that is asked by many at once."""
