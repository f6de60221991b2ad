"""The groups of ``params.yaml`` as typed, frozen objects; :mod:`pipeline.params` is the file as a whole."""
