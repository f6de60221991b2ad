"""The camera's motion in the stored flow of a clip, and flow without it."""
