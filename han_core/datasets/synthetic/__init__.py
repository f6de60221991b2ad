"""The generated dataset of the demonstration, whose every cue and every box is known."""
