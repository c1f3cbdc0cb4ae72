"""The dashboard: what happens in Perdure, live, and what can be done about it."""
