"""The recipe by which the checkpoints that come with Tintype are made. See README.md."""
