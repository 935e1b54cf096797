"""One module per command; each declares options, calls one library function and prints."""
