"""The settings with which other programs use `llmchat serve`.

A client is a file in `clients/` with its settings. The model and the address are filled in, and the
settings are printed or merged into the client's own files. No server or client is started here.
"""

from llmchat.connect.clients import Client as Client
from llmchat.connect.clients import Values as Values
from llmchat.connect.clients import all_clients as all_clients
from llmchat.connect.clients import client_names as client_names
from llmchat.connect.clients import find_client as find_client
