"""Pictures for people: where a model looked, and flow in colour."""
