"""What users start: train, evaluate, check, rescore, serve, and what each prints."""
