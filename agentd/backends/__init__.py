"""Language models, and who answers for which role."""
