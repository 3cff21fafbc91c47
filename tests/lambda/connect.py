"""One connection of the handler for Lambda, by the settings in the environment."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy/lambda/python"))
import handler

with handler.connect() as connection:
    connection.execute("SELECT 1")
print("connected")
