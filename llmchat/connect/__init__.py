"""Configurations of other programs for `llmchat serve`: what each needs, and where it is written.

A client is a file in `clients/`. Its settings are data: they are filled in with the model and the
address, then printed, or merged into the client's own files. Nothing here starts a server or a
client.
"""

from llmchat.connect.clients import Client as Client
from llmchat.connect.clients import Values as Values
from llmchat.connect.clients import all_clients as all_clients
from llmchat.connect.clients import client_names as client_names
from llmchat.connect.clients import find_client as find_client
