"""Where clips come from: the datasets, their split files, and the checks on what a person brings."""
