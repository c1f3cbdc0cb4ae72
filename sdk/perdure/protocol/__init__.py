"""The ground floor, shared by SDK and runtime: values that travel between them and how they are written."""
