"""Where rollouts come from: plans, leases, rounds, remote runners, and reading them back."""
