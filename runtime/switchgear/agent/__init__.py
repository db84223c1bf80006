"""An agent's side: declare capabilities, run attempts under leases, announce what is offered."""
