"""Where handlers run: each host passes messages between a runtime and the attempts of an endpoint."""
