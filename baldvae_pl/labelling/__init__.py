"""Labelling: what people use to answer, and what their answers become for other tools. No torch."""
