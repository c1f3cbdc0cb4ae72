"""Small programs to read first, and to run: each has an endpoint named `app`."""
