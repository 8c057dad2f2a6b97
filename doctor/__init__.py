"""``make doctor``: what keeps a stack from working, from the host up to the last verification."""
