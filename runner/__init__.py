"""Runs the program where no Pulumi CLI is to be had: same program, same Commands, own state."""
