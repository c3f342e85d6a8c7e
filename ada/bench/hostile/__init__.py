"""The benchmark of hostile neighbours: what they cost others, and whether every request is accounted for."""
