"""From predictions to figures. Knows no model and no file."""
