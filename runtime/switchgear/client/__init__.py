"""A client's side: submit tasks, wait for results, look at the mesh."""
