"""The operators' API: REST on the web process's port, with Restate's paths and codes where it has them.

/openapi describes it. It has no login yet: the web process listens on 127.0.0.1 only, and `origin` refuses what a
browser sends on behalf of pages from elsewhere.
"""
