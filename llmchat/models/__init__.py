"""The models of this machine: finding, loading, pulling, listing and checking them."""
