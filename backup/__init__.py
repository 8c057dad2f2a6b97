"""``make backup`` and ``make restore``: a stack as one archive, and back, also on another host.

No Pulumi program runs here: the CLI is called, and `up` builds what an archive does not hold.
"""
