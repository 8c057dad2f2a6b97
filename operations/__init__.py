"""What an operator does beside `up`: see who holds the memory, free it, measure."""
