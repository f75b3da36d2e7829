"""One run on disk: its folder, files, checkpoints and tables."""
