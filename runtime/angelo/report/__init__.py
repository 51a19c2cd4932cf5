"""What goes with a model: tables, a summary, and a ChimeraX script."""
