"""Place and route of single blocks and the whole engine on ECP5."""
