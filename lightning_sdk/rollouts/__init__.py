"""Running the agent on tasks and scoring its answers, in threads, processes, on Ray and on other machines."""
