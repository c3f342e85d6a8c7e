"""What the process of every server does: listen, bound connections, say how it is, drain, end."""
