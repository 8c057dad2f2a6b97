"""Programs that run by themselves where the card is: in a machine, with its engine's Python."""
