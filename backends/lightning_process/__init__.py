"""What backends share that work in a child process of the hub: how it is started, asked, watched and stopped."""
