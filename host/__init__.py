"""The host's Incus, through its client, from where Pulumi runs: read, apply, delete, upload.

Imports little beyond ``agent`` and ``declaration.connection``: a Command starts it for every Incus
object.
"""
