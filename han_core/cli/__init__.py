"""The command ``han``: tools beside the stages. The only room that knows click."""
