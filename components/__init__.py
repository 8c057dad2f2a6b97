"""Pulumi ComponentResources: Domain → Network, Profile, Volume, Instance → Service."""
