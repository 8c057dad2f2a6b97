"""The watcher of a gateway: which servers get requests, and what became of them.

It runs in the gateway's machine as ``python3 -m stt_gateway``, with the standard library only.
"""
