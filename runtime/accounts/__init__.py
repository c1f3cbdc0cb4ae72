"""Who may come in: people with accounts of Django's, programs with tokens; and the log of what they did."""
