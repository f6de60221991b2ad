"""Choosing settings of HAN inside the training groups; the command is ``pipeline/select.py``."""
