"""This process and its machine: clock, cores, threads, forks, folders and addresses."""
