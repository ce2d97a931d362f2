"""From a call to a kernel: Specs are made, Selections looked up, torch's own ops rerouted."""
