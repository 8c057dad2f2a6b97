"""What the workflows ask of GitHub, Forgejo and Gitea: comments, commit statuses, one issue.

Needs only Python's standard library, so that a runner has nothing to install.
"""
