"""What a pull request changes, as a comment: from Pulumi's previews of its two commits."""
