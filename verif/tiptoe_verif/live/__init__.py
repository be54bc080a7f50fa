"""Live traffic: TAP interfaces, network namespaces, relays."""
