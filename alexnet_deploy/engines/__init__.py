"""One module per runtime, behind one protocol (`base`) and one factory (`factory`)."""
