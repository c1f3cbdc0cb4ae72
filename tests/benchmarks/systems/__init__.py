"""The systems that are measured, one per file, behind one interface."""
