"""What the operator wants: pure data, checked before anything is touched. No Pulumi here."""
