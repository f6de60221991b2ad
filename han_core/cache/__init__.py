"""The content-addressed cache of finished files: made once, known by a fingerprint, linked where they are needed."""
