"""The systems that the paper compares HAN with, and simple ones that any result must be read beside."""
