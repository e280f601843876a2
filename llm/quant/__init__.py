"""One weight format a file."""
