"""The Pulumi resources: domains, machines, Incus objects and steps, each of them a Command.

Drift is found here, where a Command is registered. No role but the STT service's is named here,
and no engine. This room may import every room below it (``roles``, ``gpu``, ``stack``,
``engines``, ``declaration``, ``host``, ``agent``), and is the only one that imports ``pulumi``.
One module speaks to Pulumi's provider ``command`` (``command.py``), and one reads
``pulumi.Config`` (``config.py``).
"""
