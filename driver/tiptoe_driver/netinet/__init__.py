"""The slice of FreeBSD's TCP stack around the offload devices, under FreeBSD's names."""
