"""Pages and figures that show a run to people, made from the files in its folder alone."""
