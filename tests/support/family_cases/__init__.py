"""Tables of tiny configs, by kind; support.tiny_families joins them."""
