"""Programs that run where the card is: in a machine, with the Python of its engine.

Each is one file that is sent there, so none may import anything else of this project.
"""
