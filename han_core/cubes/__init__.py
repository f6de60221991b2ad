"""Feature cubes: in sparse form, as files, as a store of many clips, and in memory."""
