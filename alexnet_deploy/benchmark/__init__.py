"""How fast this machine is, what bounds it, and what would be faster."""
