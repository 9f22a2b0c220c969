"""How each picture of the documents is made. `scripts.make_pictures` is the command."""
