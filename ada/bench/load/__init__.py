"""The load benchmark of a served model."""
