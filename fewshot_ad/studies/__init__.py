"""Studies: many evaluations that answer one question."""
