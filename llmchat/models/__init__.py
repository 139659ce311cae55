"""The models on this machine: found, loaded, merged, checked and kept ready."""
