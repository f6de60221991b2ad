"""Where and how work over many clips is done; no stage knows more than its front door, ``runner``."""
