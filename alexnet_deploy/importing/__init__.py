"""AlexNets of other programs: read by content, named as in the paper, given a spec."""
