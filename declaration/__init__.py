"""What the operator wants, as data: settings, topology, steps, and what is wrong with them.

Everything is checked before anything is touched. ``settings.py`` has every setting once,
``infra.py`` every key of infra.yml, ``stack_file.py`` is the only reader of a stack's file. This
room may import ``agent``, whose kinds describe steps; no Pulumi here.
"""
