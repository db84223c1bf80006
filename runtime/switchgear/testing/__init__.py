"""What users need to test agents: an in-memory mesh, fault injection, the conformance kit."""
