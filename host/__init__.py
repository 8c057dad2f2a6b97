"""The host's Incus, through its client, from where Pulumi runs: read, apply, delete, upload.

Imports ``agent`` and ``declaration.connection`` only: a Command starts it for every Incus object.
"""
